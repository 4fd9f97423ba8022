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


@dataclasses.dataclass(frozen=True)
class Side:
    """On which side of its kink each element of a ReLU's input is to be.

    Attributes:
        positive: mask in PyTorch's layout, (N, C, H, W) or (N, C).
        tolerance: an input may be moved to the other side from no farther than this.
    """

    positive: np.ndarray
    tolerance: float

    def differs(self, x: np.ndarray) -> np.ndarray:
        """The elements of ``x``, in PyTorch's layout, that are to be moved."""
        return ((x > 0) != self.positive) & (np.abs(x) <= self.tolerance)


class ReluCalls(TorchFunctionMode):
    """Watches the ReLU calls of a PyTorch run, and can move some of their inputs past the kink.

    Tensors are told apart by identity and version (in-place arithmetic makes a new version), and
    kept for as long as this object is.

    Args:
        sides: by number of the call; inputs that are not there are moved if they are near enough.
    """

    def __init__(self, sides: Mapping[int, Side] | None = None) -> None:
        super().__init__()
        self.relus: dict[int, Relu] = {}
        self.turned = 0  # elements that were moved
        self._sides = sides or {}
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
        side = self._sides.get(self._calls)
        if side is not None:
            mask = torch.from_numpy(side.differs(x.numpy(force=True))).to(x.device)
            self.turned += int(mask.sum())
            # A constant is added: -x would turn the sign of the gradient too.
            x = x + torch.where(mask, -2 * x.detach(), 0.0)
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


def sides_of(
    relus: Mapping[int, Relu],
    oracle: Mapping[str, np.ndarray],
    run: Mapping[str, np.ndarray],
    allowed: Mapping[str, Error],
) -> dict[int, Side]:
    """The sides on which a float32 run stands, if rounding has put it on another than the oracle's.

    Args:
        relus: by number of the call.
        oracle: every layer's output in float64, (N, H, W, C) or (N, C).
        run: the same of the float32 run.
        allowed: the layers' budgets; no input is moved by more than twice the worst element's.

    Returns:
        By number of the call; empty where no sign that rounding may decide differs.
    """
    sides: dict[int, Side] = {}
    differ = False
    for index, relu in relus.items():
        a, b = oracle[relu.layer], run.get(relu.layer)
        if b is None or b.shape != a.shape:
            continue
        tolerance = allowed[relu.layer].worst * float(np.abs(a).max())
        differ = differ or bool((((a > 0) != (b > 0)) & (np.abs(a - b) <= tolerance)).any())
        positive = np.moveaxis(b > 0, -1, 1) if b.ndim == 4 else b > 0
        sides[index] = Side(positive, tolerance)
    return sides if differ else {}
