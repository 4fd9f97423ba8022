"""Records of the checks that stand apart from the comparison of whole networks."""

import dataclasses
from collections.abc import Iterable, Sequence

import numpy as np

from parity.budget import Error
from parity.comparison import Comparison
from parity.judge import Judge


def in_short(check: str, found: Iterable[Comparison]) -> list[Comparison]:
    """Comparisons of whole networks as records of a check that stands apart.

    Of each kind, in each mode, the first that is out of budget, or else the one nearest to it.
    """
    kept: dict[tuple[str, str], Comparison] = {}
    for comparison in found:
        kind = comparison.check, comparison.mode
        other = kept.get(kind)
        if other is None or (other.ok and comparison.ratio > other.ratio):
            kept[kind] = comparison
    return [
        dataclasses.replace(
            comparison, check=check, layer=f"{comparison.check}, {comparison.layer}".rstrip(", ")
        )
        for comparison in kept.values()
    ]


@dataclasses.dataclass(frozen=True)
class Recorder:
    """Makes the records of one subject.

    Attributes:
        check: key of ``parity.standalone.STANDALONE``.
        network: what is compared: a named network, or a title.
        dtype: "float64", "float32" or "bfloat16"; "" where it doesn't matter.
        mode: "eval" or "train"; "" where it doesn't matter.
    """

    check: str
    network: str
    dtype: str = ""
    mode: str = ""

    def fact(self, layer: str, holds: bool, note: str) -> Comparison:
        """Record whether something holds; ``note`` says what was found."""
        return self._make(layer, 0.0 if holds else np.inf, 0.0, note=note)

    def number(self, layer: str, error: float, budget: float, note: str) -> Comparison:
        """Record a distance and what it may be; ``note`` says in which unit."""
        return self._make(layer, error, budget, measure="worst", note=note)

    def array(
        self,
        layer: str,
        value: np.ndarray,
        oracle: np.ndarray,
        own: Sequence[Error] = (),
        *,
        backward: bool = False,
        scale: float = 0.0,
        note: str = "",
    ) -> Comparison:
        """Record an array's error by the measure that comes nearest its budget.

        Args:
            layer: what the array is.
            value: Flax's.
            oracle: float64 PyTorch's, of the same shape.
            own: PyTorch's own errors in the same dtype, one for each of its runs; none in float64.
            backward: whether it is a gradient.
            scale: what the oracle's elements count as at least.
            note: for the reader.
        """
        judge = Judge(self.network, self.dtype, self.mode)
        return judge.compare(
            self.check, layer, value, oracle, own, backward=backward, scale=scale, note=note
        )

    def _make(
        self,
        layer: str,
        error: float,
        budget: float,
        *,
        measure: str = "exact",
        reference: float | None = None,
        note: str = "",
    ) -> Comparison:
        return Comparison(
            network=self.network,
            check=self.check,
            dtype=self.dtype,
            mode=self.mode,
            layer=layer,
            error=float(error),
            budget=float(budget),
            measure=measure,
            reference=reference,
            note=note,
        )
