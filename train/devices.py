"""A CPU as several devices, one for each core.

XLA runs much of a training step on one thread of a CPU device: most convolutions, and every loop.
With a device for each core, each trains on its share of the batch, as several GPUs do.
"""

import os

import jax

# With fewer pictures than this the exchange between devices takes longer than it saves.
SMALLEST_SHARE = 4


def use_cores(batch_size: int) -> None:
    """Make a device of each core, or of so many that a batch can be split over them evenly.

    It has no effect on other platforms, where JAX has computed already, and where the user has set
    the number of devices (``JAX_NUM_CPU_DEVICES``, or in ``XLA_FLAGS``).
    """
    flag = "xla_force_host_platform_device_count"
    if "JAX_NUM_CPU_DEVICES" in os.environ or flag in os.environ.get("XLA_FLAGS", ""):
        return
    most = min(_cores(), max(1, batch_size // SMALLEST_SHARE))
    count = max(n for n in range(1, most + 1) if batch_size % n == 0)
    try:
        jax.config.update("jax_num_cpu_devices", count)
    except RuntimeError:  # the devices are there already
        return


def _cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
