"""How far two arrays are apart, and how far they may be.

The oracle is PyTorch in float64. Two measures of an array's error against it are taken, and both
must be within budget:

- ``norm``: ||a - b|| / ||b||, Euclidean;
- ``worst``: max|a - b| / max|b|, the worst element against the layer's scale.

In float64 the budget is a constant: two correct programs differ by rounding alone. In float32 it is
what float32 PyTorch itself is off from the oracle on the same layer, times ``FLOAT32_FACTOR``, plus
``FLOAT32_FLOOR_ULPS`` ulp (PyTorch may happen to round nothing at all, in an addition for example).

PyTorch's own error is a matter of luck too: in a deep network all gradients inherit the few
rounding errors of the last layers, and are off by more, or by less, together. It is therefore
measured in three ways that add in different orders (``parity.libraries``), and the largest error
counts. In bfloat16 the budget is made likewise, of bfloat16 PyTorch's error and bfloat16's
ulp.
"""

import dataclasses
from collections.abc import Iterable
from typing import Literal

import numpy as np

DType = Literal["float32", "float64"]
DTYPES: tuple[DType, ...] = ("float64", "float32")

FLOAT64_FORWARD = 1e-10
FLOAT64_BACKWARD = 1e-9
FLOAT32_FACTOR = 4.0
FLOAT32_FLOOR_ULPS = 4
FLOAT32_FLOOR = FLOAT32_FLOOR_ULPS * float(np.finfo(np.float32).eps)
BFLOAT16_FLOOR = FLOAT32_FLOOR_ULPS * 2.0**-7

# A gradient can be zero but for rounding, as that of a bias in front of batch norm is. It has no
# scale of its own, so a gradient counts as at least this share of the largest one in its layer.
SMALLEST_SHARE = 1e-4


@dataclasses.dataclass(frozen=True)
class Error:
    """Relative distance of an array from the oracle's.

    Attributes:
        norm: ||a - b|| / ||b||.
        worst: max|a - b| / max|b|.
    """

    norm: float
    worst: float

    def __add__(self, other: float) -> "Error":
        return Error(self.norm + other, self.worst + other)

    def __mul__(self, factor: float) -> "Error":
        return Error(self.norm * factor, self.worst * factor)


def relative_error(value: np.ndarray, oracle: np.ndarray, *, scale: float = 0.0) -> Error:
    """The two measures of ``value``'s distance from ``oracle``.

    Args:
        value: any real dtype; compared in float64.
        oracle: of the same shape.
        scale: the oracle's elements count as at least this large on the whole (0: as large as they
            are).

    Returns:
        The errors; infinite where shapes differ or ``value`` is not finite where the oracle is.
    """
    if value.shape != oracle.shape:
        return Error(np.inf, np.inf)
    most, squares, difference, difference_squares = _measure(value.reshape(-1), oracle.reshape(-1))
    if not np.isfinite(difference_squares):
        same = np.array_equal(value, oracle)
        return Error(0.0, 0.0) if same else Error(np.inf, np.inf)
    if not difference:
        return Error(0.0, 0.0)
    norm = max(np.sqrt(squares), scale * np.sqrt(oracle.size))
    with np.errstate(divide="ignore"):
        return Error(
            float(np.divide(np.sqrt(difference_squares), norm)),
            float(np.divide(difference, max(most, scale))),
        )


CHUNK = 2**16


def _measure(a: np.ndarray, b: np.ndarray) -> tuple[float, float, float, float]:
    """max|b|, the sum of b^2, max|a - b|, and the sum of (a - b)^2, in float64.

    By parts that a core's cache holds: the arrays may take gigabytes. Not by ``np.linalg.norm``,
    whose threads wait for each other on a busy machine.
    """
    parts = []
    with np.errstate(invalid="ignore"):
        for start in range(0, b.size, CHUNK):
            y = b[start : start + CHUNK].astype(np.float64)
            d = a[start : start + CHUNK].astype(np.float64) - y
            parts.append((np.abs(y).max(), np.square(y).sum(), np.abs(d).max(), np.square(d).sum()))
    if not parts:
        return 0.0, 0.0, 0.0, 0.0
    (most, squares, difference, difference_squares) = zip(*parts, strict=True)
    return (
        float(np.max(most)),
        float(np.sum(squares)),
        float(np.max(difference)),
        float(np.sum(difference_squares)),
    )


def largest(errors: Iterable[Error]) -> Error:
    """The largest of several runs' errors, measure by measure."""
    errors = list(errors)
    return Error(max(error.norm for error in errors), max(error.worst for error in errors))


def float64_budget(*, backward: bool = False) -> Error:
    """What a float64 array may be off."""
    allowed = FLOAT64_BACKWARD if backward else FLOAT64_FORWARD
    return Error(allowed, allowed)


def float32_budget(reference: Error) -> Error:
    """What a float32 array may be off, where float32 PyTorch is off by ``reference``."""
    return reference * FLOAT32_FACTOR + FLOAT32_FLOOR


def rounded_budget(dtype: str, reference: Error) -> Error:
    """What an array may be off in float32 or bfloat16, where PyTorch's is off by ``reference``."""
    if dtype == "bfloat16":
        return reference * FLOAT32_FACTOR + BFLOAT16_FLOOR
    return float32_budget(reference)
