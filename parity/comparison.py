"""What is compared, and the record of one comparison."""

import dataclasses
from collections.abc import Iterable, Mapping
from typing import Literal

import numpy as np

from parity.budget import DTYPES, SMALLEST_SHARE

Mode = Literal["eval", "train"]
MODES: tuple[Mode, ...] = ("eval", "train")

# Every check of the suite: first those of a pair of networks, then those that stand for themselves.
NETWORK_CHECKS = {
    "parameters": "number of trainable parameters, against the published figure",
    "bridge": "state-dict keys, there and back, each used once and to the bit",
    "names": "layers, parameters, statistics and gradients that only one side has",
    "isolated layers": "every layer by itself, fed PyTorch's own input and gradient",
    "layers": "every layer's output",
    "logits": "the network's output",
    "loss": "mean cross-entropy",
    "layer gradients": "of the loss, every layer's output, from the last layer back",
    "parameter gradients": "of the loss, every parameter, from the last layer back",
    "input gradient": "of the loss",
    "statistics": "batch norm's running mean, running variance and batch count",
    "whole network": "logits, statistics, loss and gradients of the network as one program",
    "updates": "parameters, momentum and statistics after each of several updates by SGD",
}
CHECKS = NETWORK_CHECKS | {
    "lockstep": "training recipes: momentum, Nesterov, weight decay, every schedule",
    "drift": "training in float32: how fast it leaves float64's path, and how fast PyTorch does",
    "batch norm": "the layer against PyTorch's, where its arithmetic is hard",
    "functions": "pooling and ReLU by themselves, on maps of every sign and of odd size",
    "data path": "augmented and normalised pictures against torchvision's transforms",
    "dropout": "the same masks on both sides, and what the masks are like",
    "shapes": "which sizes of pictures each network takes, and what it makes of them",
    "export": "compiled against eager, bfloat16, and the training step for other devices",
}

# From what lies nearest the cause to what follows from it. An isolated layer that is out is wrong
# by itself, whatever its neighbours do; gradients of layers and of parameters are met in turn.
STAGES = (
    *({"parameters", "bridge", "names"}, {"isolated layers"}, {"layers"}, {"logits"}, {"loss"}),
    {"layer gradients", "parameter gradients", "input gradient"},
    *({"statistics"}, {"whole network"}, {"updates"}),
    CHECKS.keys() - NETWORK_CHECKS.keys(),
)


@dataclasses.dataclass(frozen=True)
class Comparison:
    """One array, or number, of the Flax network against PyTorch's.

    Attributes:
        network: name of the pair.
        check: one of ``CHECKS``.
        dtype: compute and parameter dtype; "" where it doesn't matter.
        mode: "eval" or "train"; "" where it doesn't matter.
        layer: module, state-dict key, or "".
        error: relative, against float64 PyTorch, by the measure that comes nearest its budget.
        budget: what the error may be.
        measure: "norm" or "worst" (``parity.budget``), or "exact".
        reference: float32 PyTorch's own error by the same measure, the largest of its runs' on
            that layer; None in float64.
        note: what a reader has to know besides.
    """

    network: str
    check: str
    dtype: str
    mode: str
    layer: str
    error: float
    budget: float
    measure: str = "exact"
    reference: float | None = None
    note: str = ""

    @property
    def ok(self) -> bool:
        """Whether the error is within a finite budget."""
        return self.error <= self.budget < np.inf

    @property
    def ratio(self) -> float:
        """Error over budget: out of budget above 1; infinite if either isn't a finite number."""
        if not np.isfinite(self.error + self.budget):
            return np.inf
        if self.budget:
            return self.error / self.budget
        return np.inf if self.error else 0.0

    @property
    def impossible(self) -> bool:
        """Whether it stands for what could not be compared at all (``Judge.failure``)."""
        return self.error == np.inf and self.budget == 0


def backward_order(keys: Iterable[str], layers: Iterable[str]) -> list[str]:
    """Layers and state-dict keys, from the layer that ran last to the one that ran first.

    A key follows the name of its layer.
    """
    position = {layer: index for index, layer in enumerate(layers)}

    def place(key: str) -> tuple[int, bool]:
        is_layer = key in position
        return position.get(key if is_layer else layer_of(key), -1), is_layer

    return sorted(keys, key=place, reverse=True)


def smallest_scales(gradients: Mapping[str, np.ndarray]) -> dict[str, float]:
    """What each gradient's elements count as at least: a share of the largest in its layer."""
    largest: dict[str, float] = {}
    for key, gradient in gradients.items():
        layer = layer_of(key)
        largest[layer] = max(largest.get(layer, 0.0), float(np.abs(gradient).max()))
    return {key: SMALLEST_SHARE * largest[layer_of(key)] for key in gradients}


def layer_of(key: str) -> str:
    """The module that a state-dict key belongs to."""
    return key.rpartition(".")[0]


def first_divergence(comparisons: Iterable[Comparison]) -> Comparison | None:
    """Of the comparisons out of budget the one that lies nearest the cause; None if all are within.

    Float64 speaks before float32 and evaluation before training. Then what only one side has comes
    first, next a layer that is wrong by itself, the forward pass in execution order, the backward
    pass in its own, running statistics, and the updates.
    """
    dtypes, modes = ["", *DTYPES], ["", *MODES]

    def distance(comparison: Comparison) -> tuple[int, ...]:
        stage = next(i for i, checks in enumerate(STAGES) if comparison.check in checks)
        # A standalone check may have dtypes of its own.
        dtype = dtypes.index(comparison.dtype) if comparison.dtype in dtypes else len(dtypes)
        return dtype, modes.index(comparison.mode), stage

    failures = [comparison for comparison in comparisons if not comparison.ok]
    return min(failures, key=distance, default=None)
