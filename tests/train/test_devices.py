"""How many devices a CPU counts as."""

import os
import subprocess
import sys

import jax
import pytest

from train import devices


@pytest.mark.parametrize(
    ("cores", "batch_size", "count"),
    [(2, 128, 2), (2, 8, 2), (2, 7, 1), (2, 4, 1), (8, 60, 6), (16, 32, 8), (1, 64, 1)],
)
def test_a_batch_is_split_evenly(
    monkeypatch: pytest.MonkeyPatch, cores: int, batch_size: int, count: int
) -> None:
    chosen = {}
    monkeypatch.delenv("XLA_FLAGS", raising=False)
    monkeypatch.delenv("JAX_NUM_CPU_DEVICES", raising=False)
    monkeypatch.setattr(devices, "_cores", lambda: cores)
    monkeypatch.setattr(jax.config, "update", chosen.__setitem__)
    devices.use_cores(batch_size)
    assert chosen == {"jax_num_cpu_devices": count}


@pytest.mark.parametrize(
    "setting",
    [
        {"JAX_NUM_CPU_DEVICES": "1"},
        {"XLA_FLAGS": "--xla_force_host_platform_device_count=1"},
    ],
)
def test_the_users_own_number_stands(
    monkeypatch: pytest.MonkeyPatch, setting: dict[str, str]
) -> None:
    monkeypatch.setattr(jax.config, "update", None)
    for name, value in setting.items():
        monkeypatch.setenv(name, value)
    devices.use_cores(64)


def test_the_number_holds_in_a_new_process_and_is_left_where_jax_has_begun() -> None:
    script = """
import jax
from train import devices
devices._cores = lambda: 3
devices.use_cores(24)
assert jax.device_count() == 3
devices._cores = lambda: 2
devices.use_cores(24)
assert jax.device_count() == 3
"""
    environment = {k: v for k, v in os.environ.items() if k not in ("XLA_FLAGS",)}
    environment.pop("JAX_NUM_CPU_DEVICES", None)
    subprocess.run(
        [sys.executable, "-c", script], env=environment | {"JAX_PLATFORMS": "cpu"}, check=True
    )
