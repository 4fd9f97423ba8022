"""Comparing a pair of modules that this project has never seen."""

import copy
import time
from collections.abc import Iterable
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx
from torch import nn

from parity.budget import DTYPES, DType
from parity.checks import Pair, check_pair
from parity.comparison import MODES, Mode
from parity.naming import Rename, unchanged
from parity.record import Batches
from parity.report import NetworkReport, describe
from parity.weights import copy_weights


def compare(
    torch_module: nn.Module,
    flax_module: nnx.Module,
    inputs: np.ndarray,
    *,
    labels: np.ndarray | None = None,
    rename: Rename = unchanged,
    name: str = "pair",
    dtypes: Iterable[DType] = DTYPES,
    modes: Iterable[Mode] = MODES,
) -> NetworkReport:
    """Compare a PyTorch classifier with a Flax NNX one, layer by layer; neither is changed.

    The Flax module gets the PyTorch module's weights, in float64 and then in float32, so its layers
    must take the dtype of their parameters (``dtype=None``, NNX's default). Layers, parameters and
    statistics are matched by name.

    A layer that takes several arrays, or keywords in PyTorch, is compared within the network only.

    Args:
        torch_module: from (N, C, H, W) to (N, classes).
        flax_module: from (N, H, W, C) to (N, classes).
        inputs: (K, N, H, W, C), K batches; running statistics are compared after all of them.
        labels: (K, N), below the number of classes; zeros by default.
        rename: the dotted name of a Flax module or variable to PyTorch's, after leaves have been
            renamed (``conv.kernel`` arrives as ``conv.weight``).
        name: for the report.
        dtypes: what to compare in.
        modes: "eval", "train".

    Raises:
        ValueError: the weights of one don't fit the other (every key that doesn't is listed), or
            inputs, labels, dtypes or modes are not of the kind told above.
    """
    started = time.perf_counter()
    inputs = np.asarray(inputs, np.float64)
    labels = np.zeros(inputs.shape[:2], np.int64) if labels is None else np.asarray(labels)
    _check_inputs(inputs, labels)
    module = copy.deepcopy(torch_module).double()

    def make_flax(dtype: DType) -> nnx.Module:
        model = nnx.clone(flax_module)
        copy_weights(module, model, rename, dtype=jnp.dtype(dtype))
        return model

    pair = Pair(name, module, make_flax, Batches(inputs, labels), rename)
    found = [c for group in check_pair(pair, dtypes=dtypes, modes=modes) for c in group]
    return NetworkReport(name, tuple(found), time.perf_counter() - started)


def _check_inputs(inputs: np.ndarray, labels: np.ndarray) -> None:
    if inputs.ndim != 5 or not inputs.size:
        hint = "; for one batch give inputs[None]" if inputs.ndim == 4 else ""
        raise ValueError(f"inputs are (K, N, H, W, C), K batches, got shape {inputs.shape}{hint}")
    if labels.shape != inputs.shape[:2] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels are {inputs.shape[:2]} whole numbers, one a picture, "
            f"got {labels.dtype} of shape {labels.shape}"
        )


def assert_equal(
    torch_module: nn.Module, flax_module: nnx.Module, inputs: np.ndarray, **options: Any
) -> None:
    """For test suites: ``compare``, and fail with the first divergence.

    Raises:
        AssertionError: something is out of budget.
        ValueError: as ``compare``.
    """
    first = compare(torch_module, flax_module, inputs, **options).first_divergence
    if first is not None:
        raise AssertionError(f"not equal; first divergence: {describe(first)}")
