"""The same pictures, labels and weights for every side, drawn by NumPy alone."""

import math
import zlib
from collections.abc import Mapping

import numpy as np

from benchmarks.task import Task

# Steps take turns with so many batches, so that none can be computed once for all.
BATCHES = 4
CROP_PADDING = 4
MEAN, STD = (0.4914, 0.4822, 0.4465), (0.2470, 0.2435, 0.2616)


def batches(task: Task) -> tuple[np.ndarray, np.ndarray]:
    """Normalised pictures (BATCHES, N, H, W, 3) float32 and labels (BATCHES, N) int32."""
    generator = np.random.default_rng(0)
    shape = (BATCHES, task.batch, task.height, task.width, 3)
    images = generator.standard_normal(shape, np.float32)
    return images, generator.integers(0, task.classes, shape[:2], np.int32)


def raw_pictures(task: Task, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Pictures (count, H, W, 3) uint8 and labels (count,) int32."""
    generator = np.random.default_rng(seed)
    images = generator.integers(0, 256, (count, task.height, task.width, 3), np.uint8)
    return images, generator.integers(0, task.classes, count, np.int32)


def draw_weights(shapes: Mapping[str, tuple[int, ...]]) -> dict[str, np.ndarray]:
    """Draw first weights by PyTorch's names and layout, float32; the same for the same name.

    Kernels are N(0, 2 / fan_in) (He et al. 2015, arXiv:1502.01852), scales and variances 1, all
    else 0.
    """
    return {name: _draw(name, shape) for name, shape in shapes.items()}


def _draw(name: str, shape: tuple[int, ...]) -> np.ndarray:
    if len(shape) > 1:
        generator = np.random.default_rng(zlib.crc32(name.encode()))
        deviation = np.float32(math.sqrt(2 / math.prod(shape[1:])))
        return generator.standard_normal(shape, np.float32) * deviation
    return np.full(shape, name.endswith(("weight", "running_var")), np.float32)
