"""The device and the memory of this process."""

import contextlib
import ctypes
import os
import platform
import resource
import sys
from pathlib import Path
from typing import Any

from benchmarks.task import Task

_STATUS = Path("/proc/self/status")


def describe_device() -> dict[str, Any]:
    """The device that this process has computed on: ``platform`` ("cpu" or "gpu") and ``name``."""
    jax, torch = sys.modules.get("jax"), sys.modules.get("torch")
    side = sys.modules.get("benchmarks.torch_side")
    if torch is not None and side is not None and side.find_device().type == "cuda":
        return {"platform": "gpu", "name": torch.cuda.get_device_name()}
    if jax is not None and side is None and jax.default_backend() == "gpu":
        return {"platform": "gpu", "name": jax.devices()[0].device_kind}
    return {"platform": "cpu", "name": _processor()}


def cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Processes that have wanted to compute in the last minute; None where nobody counts them."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def free_memory() -> int:
    """Bytes of main memory that a new process could have; all there are where it can't be told."""
    try:
        for line in Path("/proc/meminfo").read_text().splitlines():
            if line.startswith("MemAvailable:"):
                return int(line.split()[1]) * 1024
    except OSError:
        pass
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def require_memory(task: Task) -> None:
    """Raise ``MemoryError`` where a batch can't fit the main memory, before that is tried."""
    free = free_memory()
    if task.needed_bytes > free:
        raise MemoryError(
            f"it takes more than {task.needed_bytes / 2**30:,.1f} GiB, and {free / 2**30:,.1f} "
            "GiB are free"
        )


class PeakMemory:
    """The most memory that this process has had since :meth:`reset`, beyond what it had at first.

    On a GPU it is the device's memory, and JAX's from the start: it can't forget.
    """

    def __init__(self) -> None:
        _give_back()
        self._before = _status("VmRSS")

    def reset(self) -> None:
        """Forget the peak so far (of compilation, say), where the system can."""
        _give_back()
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5")
        if (torch := _torch_on_gpu()) is not None:
            torch.cuda.reset_peak_memory_stats()

    def bytes(self) -> int:
        """The peak."""
        if (torch := _torch_on_gpu()) is not None:
            return int(torch.cuda.max_memory_allocated())
        jax = sys.modules.get("jax")
        if jax is not None and (stats := jax.local_devices()[0].memory_stats()):
            return int(stats["peak_bytes_in_use"])
        return max(0, _status("VmHWM") - self._before)


def _torch_on_gpu() -> Any:
    """PyTorch where this process computes on a GPU with it; else None."""
    torch = sys.modules.get("torch")
    if torch is None or not (torch.cuda.is_available() and torch.cuda.is_initialized()):
        return None
    return torch


def _give_back() -> None:
    """Return to the system what has been freed and is kept for later, where the C library can."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def _status(field: str) -> int:
    """A line of the process's status in bytes; the highest ever where there is no such file."""
    if _STATUS.exists():
        for line in _STATUS.read_text().splitlines():
            if line.startswith(f"{field}:"):
                return int(line.split()[1]) * 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024


def _processor() -> str:
    try:
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
