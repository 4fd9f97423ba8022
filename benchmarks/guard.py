"""A guard against regressions: a fresh run's ratios beside those of a saved document.

Ratios between sides that were measured in turns hold from day to day, where seconds don't; but not
from machine to machine: save and guard on the same one.
"""

import dataclasses
from collections.abc import Iterable
from typing import Any

from benchmarks.measure import CouldNotMeasureError
from benchmarks.records import Record

GUARDED = "ours"


@dataclasses.dataclass(frozen=True)
class Finding:
    """How many times as good as another side this project's was then, and is now.

    Attributes:
        reference: the other side's record in the document.
        saved: the ratio of the document.
        fresh: of the run just made; None where one of the two sides is not in it.
        regressed: whether it fell by more than the tolerance, or is missing.
    """

    reference: Record
    saved: float
    fresh: float | None
    regressed: bool

    def __str__(self) -> str:
        """One line."""
        of = self.reference
        where = " ".join(filter(None, [of.work, of.variant, of.arch]))
        then = f"{where}, batch {of.batch}, to {of.side}: {self.saved:.2f}x then, "
        if self.fresh is None:
            return f"{'MISSING':<8}{then}not measured now"
        change = 100 * (self.fresh / self.saved - 1)
        verdict = "WORSE" if self.regressed else "ok"
        return f"{verdict:<8}{then}{self.fresh:.2f}x now ({change:+.0f} %)"


def compare(saved: Iterable[Record], fresh: Iterable[Record], tolerance: float) -> list[Finding]:
    """This project's ratio to each other side, then and now.

    Args:
        saved: of the document.
        fresh: of the new run.
        tolerance: the share of a ratio that may be lost.

    Raises:
        CouldNotMeasureError: the document has no such ratio.
    """
    now = {key: ratio for key, (_, ratio) in _ratios(fresh).items()}
    findings = []
    for key, (reference, then) in _ratios(saved).items():
        ratio = now.get(key)
        regressed = ratio is None or ratio < then * (1 - tolerance)
        findings.append(Finding(reference, then, ratio, regressed))
    if not findings:
        raise CouldNotMeasureError(f"the saved comparison has no ratio of {GUARDED} to others")
    return findings


def _ratios(records: Iterable[Record]) -> dict[tuple[Any, ...], tuple[Record, float]]:
    """By group and other side: that side's record, and its cost over this project's."""
    records = [each for each in records if each.cost > 0]
    ours = {each.group: each.cost for each in records if each.side == GUARDED}
    return {
        (*each.group, each.side): (each, each.cost / ours[each.group])
        for each in records
        if each.side != GUARDED and each.group in ours
    }
