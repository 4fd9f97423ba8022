"""Two runs of one network, array by array."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from parity.budget import Error, float64_budget, largest, relative_error, rounded_budget
from parity.comparison import Comparison, backward_order, layer_of, smallest_scales
from parity.record import Trace
from parity.weights import BATCHES_TRACKED


@dataclasses.dataclass(frozen=True)
class Judge:
    """Compares the arrays of one network, dtype and mode.

    Attributes:
        network: name of the pair.
        dtype: of the Flax run: "float64", "float32" or "bfloat16".
        mode: of both runs: "eval" or "train"; "" where it doesn't matter.
    """

    network: str
    dtype: str
    mode: str

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
            references: runs of PyTorch in the Flax run's dtype; none in float64.
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
                found.append(self.compare("layers", layer, flax.layers[layer], output, own))
        own = [relative_error(run.logits, oracle.logits) for run in references]
        found.append(self.compare("logits", "", flax.logits, oracle.logits, own))
        found.append(self._loss(oracle, flax, references))

        runs = list(zip(references, reference_gradients, strict=True))
        found += self._gradients(flax, flax_gradients, runs, list(oracle.layers), note)
        for key, statistic in oracle.statistics.items():
            if key in flax.statistics:
                own = [relative_error(run.statistics[key], statistic) for run in references]
                found.append(self.compare("statistics", key, flax.statistics[key], statistic, own))
        return found

    def _gradients(
        self,
        flax: Trace,
        oracle: Trace,
        runs: Sequence[tuple[Trace, Trace]],
        order: Sequence[str],
        note: str,
    ) -> list[Comparison]:
        """From the last layer back: a layer's output's first, then those of its parameters.

        Args:
            flax: the Flax run.
            oracle: what it is held against.
            runs: float32 PyTorch's runs, and what each is held against.
            order: the layers in execution order.
            note: for every comparison.
        """
        parameters = oracle.parameter_gradients
        scales = smallest_scales(parameters)
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
        found = []
        for name in backward_order([*oracle.layer_gradients, *parameters], order):
            if name in oracle.layer_gradients and name in flax.layer_gradients:
                value, expected = flax.layer_gradients[name], oracle.layer_gradients[name]
                own = [
                    relative_error(run.layer_gradients[name], against.layer_gradients[name])
                    for run, against in runs
                ]
                check, scale = "layer gradients", 0.0
            elif name in parameters and name in flax.parameter_gradients:
                value, expected = flax.parameter_gradients[name], parameters[name]
                own, scale = own_of_layer[layer_of(name)], scales[name]
                check = "parameter gradients"
            else:
                continue
            found.append(
                self.compare(
                    check, name, value, expected, own, backward=True, scale=scale, note=note
                )
            )
        own = [relative_error(run.input_gradient, its.input_gradient) for run, its in runs]
        value, expected = flax.input_gradient, oracle.input_gradient
        found.append(
            self.compare("input gradient", "", value, expected, own, backward=True, note=note)
        )
        return found

    def _loss(self, oracle: Trace, flax: Trace, references: Sequence[Trace]) -> Comparison:
        """Compare a single number, which float32 PyTorch may have right by luck.

        Its error on it therefore counts as what its logits' errors can do to cross-entropy, whose
        derivatives with respect to one picture's logits have absolute values of sum at most 2.
        """
        off = [np.abs(run.logits.astype(np.float64) - oracle.logits) for run in references]
        possible = [oracle.loss + 2 * each.max(axis=-1).mean() for each in off]
        own = [relative_error(loss, oracle.loss) for loss in possible]
        return self.compare("loss", "", flax.loss, oracle.loss, own)

    def compare(
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
        """Compare one array; whole numbers have to be the same.

        Args:
            check: one of ``CHECKS``.
            layer: for the record.
            value: Flax's array.
            oracle: float64 PyTorch's.
            own: PyTorch's errors there in the same dtype; not read in float64.
            backward: whether it is a gradient, or comes of one.
            scale: what the oracle's elements count as at least (``relative_error``).
            note: for the record.
        """
        error = relative_error(value, oracle, scale=scale)
        reference_error = None
        if np.issubdtype(oracle.dtype, np.integer):
            budget = Error(0.0, 0.0)
        elif self.dtype == "float64":
            budget = float64_budget(backward=backward)
        else:
            reference_error = largest(own)
            budget = rounded_budget(self.dtype, reference_error)
        if value.shape != oracle.shape:
            note = f"shape {value.shape}, PyTorch's is {oracle.shape}"
        elif self.dtype == "float64" and value.dtype == np.float32:
            note = "computed in float32; layers have to take the dtype of their parameters"
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

    def failure(self, check: str, layer: str, note: str) -> Comparison:
        """The record of what could not be compared at all."""
        return Comparison(
            network=self.network,
            check=check,
            dtype=self.dtype,
            mode=self.mode,
            layer=layer,
            error=np.inf,
            budget=0.0,
            note=note,
        )

    def _names(self, oracle: Trace, flax: Trace) -> list[Comparison]:
        """What only one side has; or one record that says that there is nothing."""
        unmatched = []
        kinds = {
            "layers": "layer",
            "layer_gradients": "gradient",
            "parameter_gradients": "parameter",
            "statistics": "statistic",
        }
        for kind, what in kinds.items():
            torch_names, flax_names = set(getattr(oracle, kind)), set(getattr(flax, kind))
            if kind == "layers":
                torch_names -= oracle.containers - flax_names
                flax_names -= flax.containers - torch_names
            if kind == "layer_gradients":
                both = oracle.leaves & flax.leaves
                torch_names, flax_names = torch_names & both, flax_names & both
            if kind == "statistics" and not any(
                key.endswith(BATCHES_TRACKED) for key in flax_names
            ):
                # Flax's own batch norm counts no batches; then there is nothing to compare.
                torch_names = {key for key in torch_names if not key.endswith(BATCHES_TRACKED)}
            in_order = [*getattr(oracle, kind), *getattr(flax, kind)]
            for name in dict.fromkeys(in_order):
                if name in torch_names and name not in flax_names:
                    unmatched.append((name, f"{what} only in PyTorch"))
                elif name in flax_names and name not in torch_names:
                    unmatched.append((name, f"{what} only in Flax"))
        if unmatched:
            return [self.failure("names", name, note) for name, note in unmatched]
        return [Comparison(self.network, "names", self.dtype, self.mode, "", error=0.0, budget=0.0)]
