"""What a Flax variable is called, and how it lies in memory, in PyTorch."""

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

import flaxnets

Rename = Callable[[str], str]

# Axes of a kernel in Flax's order, as PyTorch orders them: (in, out) to (out, in); HWIO to OIHW.
# Not taken from flaxnets' own table, which is under test here.
TORCH_AXES = {2: (1, 0), 4: (3, 2, 0, 1)}


def kernel_axes(dimensions: int) -> tuple[int, ...]:
    """Axes of a Flax kernel in PyTorch's order.

    Raises:
        ValueError: it is of no layer whose layout is known.
    """
    if dimensions not in TORCH_AXES:
        raise ValueError(
            f"a kernel of {dimensions} dimensions can't be compared: only those of linear layers "
            "(2) and of 2-D convolutions (4) can"
        )
    return TORCH_AXES[dimensions]


def torch_key(path: tuple[Any, ...], rename: Rename) -> str:
    """PyTorch's state-dict key of the Flax variable at ``path``."""
    return rename(flaxnets.torch_name(path))


def in_torch_layout(path: tuple[Any, ...], value: Any) -> np.ndarray:
    """The variable's value as PyTorch lays it out."""
    array = np.asarray(value)
    if path[-1] != "kernel":
        return array
    if array.ndim == 4:
        # First I and O change places: copied in one go the order takes NumPy three times as long.
        height, width, channels, features = array.shape
        swapped = np.ascontiguousarray(array.transpose(0, 1, 3, 2)).reshape(height * width, -1)
        return np.ascontiguousarray(swapped.T).reshape(features, channels, height, width)
    return array.transpose(kernel_axes(array.ndim))


def unchanged(name: str) -> str:
    """The rename of networks whose module names are the same on both sides."""
    return name


def torch_arrays(
    variables: Iterable[tuple[tuple[Any, ...], Any]], rename: Rename
) -> dict[str, np.ndarray]:
    """Flax variables, by path, as arrays under PyTorch's keys and in its layout."""
    return {torch_key(path, rename): in_torch_layout(path, value) for path, value in variables}
