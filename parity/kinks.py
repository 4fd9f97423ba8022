"""The points where a ReLU network's gradient jumps, and what that means in float32.

The gradient of a ReLU jumps where its input is zero. Of the millions of inputs in a network some
lie so near to zero that rounding decides their sign, so two correct float32 programs may stand on
different sides of a kink, and there have different gradients: by a whole element, not by an ulp,
and from that layer on all the way back to the input. Comparing those would measure luck.

So a float32 gradient is held against the oracle *on its own side of the kinks*: the float64 run is
repeated with the sign of those few inputs turned, which changes them by no more than the rounding
error that the layer is allowed anyway. An input whose sign differs although it is *not* that near
to zero is left alone: it is a wrong forward pass, and shows as one. Max-pooling has kinks too,
between near-equal elements of a window; they are as good as never met (the windows are few), and
are not treated.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch.overrides import TorchFunctionMode

from parity.budget import Error

RELUS = {F.relu, F.relu_, torch.relu, torch.relu_, torch.Tensor.relu, torch.Tensor.relu_}


@dataclasses.dataclass(frozen=True)
class Relu:
    """One call of a ReLU.

    Attributes:
        layer: the recorded layer whose output shows the sign of the ReLU's input.
        after: the layer's output is the ReLU's, not the ReLU's input.
    """

    layer: str
    after: bool


class ReluCalls(TorchFunctionMode):
    """Watches the ReLU calls of a PyTorch run, and can turn the sign of some of their inputs.

    Tensors are told apart by identity and version (in-place arithmetic makes a new version), and
    kept for as long as this object is.

    Args:
        turned: for the n-th call, a mask of the input's elements whose sign is turned.
    """

    def __init__(self, turned: Mapping[int, np.ndarray] | None = None) -> None:
        super().__init__()
        self.relus: dict[int, Relu] = {}
        self._turned = turned or {}
        self._calls = 0
        self._layer_outputs: dict[tuple[int, int], str] = {}
        self._relu_outputs: dict[tuple[int, int], int] = {}
        self._kept: list[torch.Tensor] = []

    def __torch_function__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Any = None
    ) -> Any:
        """Run ``func``, as ``TorchFunctionMode`` asks for."""
        if func not in RELUS:
            return func(*args, **(kwargs or {}))
        x, *rest = args
        layer = self._layer_outputs.get(_version(x))
        if layer is not None:
            self.relus[self._calls] = Relu(layer, after=False)
        mask = self._turned.get(self._calls)
        if mask is not None:
            # A constant is added: -x would turn the sign of the gradient too.
            x = x + torch.where(torch.from_numpy(mask), -2 * x.detach(), 0.0)
        result = func(x, *rest, **(kwargs or {}))
        self._kept.append(result)
        self._relu_outputs[_version(result)] = self._calls
        self._calls += 1
        return result

    def layer_ended(self, name: str, output: torch.Tensor) -> None:
        """Note the output of layer ``name``; to be called from a forward hook."""
        self._kept.append(output)
        self._layer_outputs[_version(output)] = name
        call = self._relu_outputs.get(_version(output))
        if call is not None:
            self.relus.setdefault(call, Relu(name, after=True))


def _version(tensor: torch.Tensor) -> tuple[int, int]:
    return id(tensor), tensor._version


def turned_signs(
    relus: Mapping[int, Relu],
    oracle: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray],
    allowed: Mapping[str, Error],
) -> dict[int, np.ndarray]:
    """Which inputs of which ReLU calls rounding has put on the other side of zero.

    Args:
        relus: by number of the call.
        oracle: every layer's output in float64, (N, H, W, C) or (N, C).
        other: the same of a float32 run.
        allowed: the layers' budgets; only elements within the worst-element budget of zero are
            turned.

    Returns:
        By number of the call, masks in PyTorch's layout, of those calls that have any.
    """
    result = {}
    for index, relu in relus.items():
        a, b = oracle[relu.layer], other.get(relu.layer)
        if b is None or b.shape != a.shape:
            continue
        near = np.abs(a - b) <= allowed[relu.layer].worst * np.abs(a).max()
        mask = ((a > 0) != (b > 0)) & near
        if mask.any():
            result[index] = (
                np.ascontiguousarray(mask.transpose(0, 3, 1, 2)) if a.ndim == 4 else mask
            )
    return result
