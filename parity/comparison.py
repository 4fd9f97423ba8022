"""Two runs of one network, array by array."""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from parity.budget import (
    DTYPES,
    SMALLEST_SHARE,
    DType,
    Error,
    float32_budget,
    float64_budget,
    largest,
    relative_error,
)
from parity.record import Trace
from parity.weights import BATCHES_TRACKED

Mode = Literal["eval", "train"]
MODES: tuple[Mode, ...] = ("eval", "train")

CHECKS = {
    "parameters": "number of trainable parameters, against the published figure",
    "names": "layers, parameters and statistics that only one side has",
    "layers": "every layer's output",
    "logits": "the network's output",
    "loss": "mean cross-entropy",
    "parameter gradients": "of the loss, every parameter, from the last layer back",
    "input gradient": "of the loss",
    "statistics": "batch norm's running mean, running variance and batch count",
}


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
        """Error over budget: out of budget above 1."""
        if self.budget:
            return self.error / self.budget
        return np.inf if self.error else 0.0


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares the arrays of one network, dtype and mode.

    Attributes:
        network: name of the pair.
        dtype: of the Flax run.
        mode: of both runs.
    """

    network: str
    dtype: DType
    mode: Mode

    def traces(
        self,
        oracle: Trace,
        flax: Trace,
        references: Sequence[Trace] = (),
        *,
        flax_gradients: Trace | None = None,
        reference_gradients: Sequence[Trace] = (),
    ) -> list[Comparison]:
        """Compare all that two runs hold.

        Args:
            oracle: float64 PyTorch.
            flax: the Flax run.
            references: runs of float32 PyTorch, where the Flax run is in float32.
            flax_gradients: what the Flax run's gradients are held against; ``oracle`` by default.
            reference_gradients: the same for each of the references.
        """
        flax_gradients = flax_gradients or oracle
        reference_gradients = reference_gradients or [oracle] * len(references)
        turned = [flax_gradients.turned, *(other.turned for other in reference_gradients)]
        note = "ReLU signs turned: Flax {}, PyTorch {}".format(
            turned[0], ", ".join(map(str, turned[1:]))
        )
        note = note if any(turned) else ""

        found = self._names(oracle, flax)
        for layer, output in oracle.layers.items():
            if layer in flax.layers:
                own = [relative_error(run.layers[layer], output) for run in references]
                found.append(self._compare("layers", layer, flax.layers[layer], output, own))
        own = [relative_error(run.logits, oracle.logits) for run in references]
        found.append(self._compare("logits", "", flax.logits, oracle.logits, own))
        found.append(self._loss(oracle, flax, references))

        runs = list(zip(references, reference_gradients, strict=True))
        gradients = flax_gradients.parameter_gradients
        scales = smallest_scales(gradients)
        # A layer's scale and bias, its kernel and bias, share one budget: they are sums over the
        # same gradient.
        own_of_layer: dict[str, list[Error]] = {}
        for key, scale in scales.items():
            own_of_layer.setdefault(layer_of(key), []).extend(
                relative_error(
                    run.parameter_gradients[key], against.parameter_gradients[key], scale=scale
                )
                for run, against in runs
            )
        for key in backward_order(gradients, oracle.layers):
            if key in flax.parameter_gradients:
                found.append(
                    self._compare(
                        "parameter gradients",
                        key,
                        flax.parameter_gradients[key],
                        gradients[key],
                        own_of_layer[layer_of(key)],
                        backward=True,
                        scale=scales[key],
                        note=note,
                    )
                )
        found.append(
            self._compare(
                "input gradient",
                "",
                flax.input_gradient,
                flax_gradients.input_gradient,
                [relative_error(run.input_gradient, its.input_gradient) for run, its in runs],
                backward=True,
                note=note,
            )
        )
        for key, statistic in oracle.statistics.items():
            if key in flax.statistics:
                own = [relative_error(run.statistics[key], statistic) for run in references]
                found.append(self._compare("statistics", key, flax.statistics[key], statistic, own))
        return found

    def _loss(self, oracle: Trace, flax: Trace, references: Sequence[Trace]) -> Comparison:
        """Compare a single number, which float32 PyTorch may have right by luck.

        Its error on it therefore counts as what its logits' errors can do to cross-entropy, whose
        derivatives with respect to one picture's logits have absolute values of sum at most 2.
        """
        off = [np.abs(run.logits.astype(np.float64) - oracle.logits) for run in references]
        possible = [oracle.loss + 2 * each.max(axis=-1).mean() for each in off]
        own = [relative_error(loss, oracle.loss) for loss in possible]
        return self._compare("loss", "", flax.loss, oracle.loss, own)

    def _compare(
        self,
        check: str,
        layer: str,
        value: np.ndarray,
        oracle: np.ndarray,
        own: Sequence[Error],
        *,
        backward: bool = False,
        scale: float = 0.0,
        note: str = "",
    ) -> Comparison:
        """Compare one array; ``own`` are float32 PyTorch's errors there."""
        error = relative_error(value, oracle, scale=scale)
        if self.dtype == "float64":
            reference_error, budget = None, float64_budget(backward=backward)
        else:
            reference_error = largest(own)
            budget = float32_budget(reference_error)
        if value.shape != oracle.shape:
            note = f"shape {value.shape}, PyTorch's is {oracle.shape}"
        return max(
            (
                Comparison(
                    network=self.network,
                    check=check,
                    dtype=self.dtype,
                    mode=self.mode,
                    layer=layer,
                    error=getattr(error, measure),
                    budget=getattr(budget, measure),
                    measure=measure,
                    reference=getattr(reference_error, measure, None),
                    note=note,
                )
                for measure in ("norm", "worst")
            ),
            key=lambda comparison: comparison.ratio,
        )

    def _names(self, oracle: Trace, flax: Trace) -> list[Comparison]:
        """What only one side has; or one record that says that there is nothing."""
        unmatched = []
        for kind in ("layers", "parameter_gradients", "statistics"):
            torch_names, flax_names = set(getattr(oracle, kind)), set(getattr(flax, kind))
            if kind == "layers":
                torch_names -= oracle.containers - flax_names
                flax_names -= flax.containers - torch_names
            if kind == "statistics" and not any(
                key.endswith(BATCHES_TRACKED) for key in flax_names
            ):
                # Flax's own batch norm counts no batches; then there is nothing to compare.
                torch_names = {key for key in torch_names if not key.endswith(BATCHES_TRACKED)}
            what = {"parameter_gradients": "parameter"}.get(kind, kind.rstrip("s"))
            in_order = [*getattr(oracle, kind), *getattr(flax, kind)]
            for name in dict.fromkeys(in_order):
                if name in torch_names and name not in flax_names:
                    unmatched.append((name, f"{what} only in PyTorch"))
                elif name in flax_names and name not in torch_names:
                    unmatched.append((name, f"{what} only in Flax"))
        return [
            Comparison(
                network=self.network,
                check="names",
                dtype=self.dtype,
                mode=self.mode,
                layer=name,
                error=np.inf if name else 0.0,
                budget=0.0,
                note=note,
            )
            for name, note in unmatched or [("", "")]
        ]


def backward_order(keys: Iterable[str], layers: Iterable[str]) -> list[str]:
    """State-dict keys from the layer that ran last to the one that ran first."""
    position = {layer: index for index, layer in enumerate(layers)}
    return sorted(keys, key=lambda key: position.get(layer_of(key), -1), reverse=True)


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
    first, next the forward pass in execution order, then the backward pass in its own, then running
    statistics.
    """
    dtypes, modes, checks = ["", *DTYPES], ["", *MODES], list(CHECKS)
    failures = [comparison for comparison in comparisons if not comparison.ok]
    return min(
        failures,
        key=lambda c: (dtypes.index(c.dtype), modes.index(c.mode), checks.index(c.check)),
        default=None,
    )
