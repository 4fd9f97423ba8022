"""A CIFAR-10 of a few random pictures."""

from pathlib import Path

import numpy as np
import pytest

CIFAR10_FILES = [*(f"data_batch_{number}.bin" for number in range(1, 6)), "test_batch.bin"]


@pytest.fixture
def cifar10_dir(tmp_path: Path) -> Path:
    """A data folder whose cifar-10-batches-bin holds 6 files of 4 pictures each."""
    generator = np.random.default_rng(0)
    folder = tmp_path / "cifar" / "cifar-10-batches-bin"
    folder.mkdir(parents=True)
    for name in CIFAR10_FILES:
        records = generator.integers(0, 256, (4, 3073), dtype=np.uint8)
        records[:, 0] %= 10
        (folder / name).write_bytes(records.tobytes())
    return folder.parent
