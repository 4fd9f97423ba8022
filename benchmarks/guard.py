"""A guard against regressions: a fresh run's ratios beside those of a saved document.

Ratios between sides that were measured in turns hold from day to day and nearly from machine to
machine, where seconds don't.
"""

import dataclasses
from collections.abc import Iterable

from benchmarks.measure import CouldNotMeasureError
from benchmarks.records import Ratio

GUARDED = "ours"


@dataclasses.dataclass(frozen=True)
class Finding:
    """A ratio then and now.

    Attributes:
        saved: of the document.
        fresh: of the run just made.
        regressed: whether it fell by more than the tolerance.
    """

    saved: Ratio
    fresh: Ratio
    regressed: bool

    def __str__(self) -> str:
        """One line."""
        where = " ".join(filter(None, [self.saved.work, self.saved.variant, self.saved.arch]))
        change = 100 * (self.fresh.ratio / self.saved.ratio - 1)
        return (
            f"{'WORSE' if self.regressed else 'ok':<6} {where}, batch {self.saved.batch}, to "
            f"{self.saved.to}: {self.saved.ratio:.2f}x then, {self.fresh.ratio:.2f}x now "
            f"({change:+.0f} %)"
        )


def compare(saved: Iterable[Ratio], fresh: Iterable[Ratio], tolerance: float) -> list[Finding]:
    """This project's ratios then and now.

    Args:
        saved: of the document.
        fresh: of the new run.
        tolerance: the share of a ratio that may be lost.

    Raises:
        CouldNotMeasureError: no ratio is in both.
    """
    now = {ratio.key: ratio for ratio in fresh}
    findings = [
        Finding(then, now[then.key], now[then.key].ratio < then.ratio * (1 - tolerance))
        for then in saved
        if then.side == GUARDED and then.key in now
    ]
    if not findings:
        raise CouldNotMeasureError("the saved comparison and the new one have no ratio in common")
    return findings
