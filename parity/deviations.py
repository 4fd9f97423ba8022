"""How far a run in Flax is from PyTorch's after every update, and what went wrong first."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from parity.budget import FLOAT64_BACKWARD, relative_error
from parity.comparison import Comparison, smallest_scales
from parity.training import Arrays, Snapshot

BY_PARAMETER = ("gradients", "momentum", "parameters")


class Deviation(NamedTuple):
    """The farthest that one kind of array is from PyTorch's after an update.

    Attributes:
        step: 1 for the first update.
        kind: field of ``parity.training.Snapshot``.
        key: PyTorch's; of what differs first where something is out of budget, else of the worst.
        error: relative, by the larger measure of ``parity.budget``.
        measure: that measure, "norm" or "worst"; "exact" for keys that only one side has.
    """

    step: int
    kind: str
    key: str = ""
    error: float = 0.0
    measure: str = "exact"

    @property
    def ok(self) -> bool:
        """Whether it is within float64's budget."""
        return self.error <= FLOAT64_BACKWARD

    @property
    def place(self) -> str:
        """Step and array in words."""
        if self.kind == "learning_rate":
            return f"schedule: step {self.step}"
        what = {"loss": "loss", "gradients": "gradient of ", "momentum": "momentum of "}
        return f"step {self.step}: {what.get(self.kind, '')}{self.key}"


def compare(step: int, flax: Snapshot, torch: Snapshot) -> list[Deviation]:
    """The farthest deviation of each kind after an update, causes before effects.

    Of a kind that neither side has (momentum without momentum) there is none.
    """
    return [
        _farthest(step, kind, ours, theirs)
        for kind, ours, theirs in zip(Snapshot._fields, flax, torch, strict=True)
        if ours or theirs
    ]


def _farthest(step: int, kind: str, ours: Arrays, theirs: Arrays) -> Deviation:
    scales = smallest_scales(theirs) if kind in BY_PARAMETER else {}
    found = []
    for key in [*theirs, *(ours.keys() - theirs.keys())]:
        if key not in ours or key not in theirs:
            found.append(Deviation(step, kind, key, np.inf))
            continue
        error = relative_error(ours[key], theirs[key], scale=scales.get(key, 0.0))
        measure = "norm" if error.norm > error.worst else "worst"
        found.append(Deviation(step, kind, key, getattr(error, measure), measure))
    out = [deviation for deviation in found if not deviation.ok]
    if out:
        # The backward pass begins with the last layer.
        return out[-1 if kind == "gradients" else 0]
    return max(found, key=lambda each: each.error)


def judge(network: str, steps: Iterable[Sequence[Deviation]]) -> list[Comparison]:
    """A float64 run in short: one comparison of each kind, the one that failed first before others.

    Each is of the kind's first deviation that is out of budget, or else of the farthest. Where the
    momentum buffers or parameters are wrong after an update whose learning rate and gradients are
    right, the place is the optimizer.

    Args:
        network: title of the run.
        steps: what ``compare`` found after each update.
    """
    steps = list(steps)
    found = []
    for run in zip(*steps, strict=True):
        farthest = max(run, key=lambda each: each.error)
        shown = next((each for each in run if not each.ok), farthest)
        right = {each.kind for each in steps[shown.step - 1] if each.ok}
        place = shown.place
        if (
            not shown.ok
            and shown.kind in ("momentum", "parameters")
            and right >= {"learning_rate", "gradients"}
        ):
            place = f"optimizer: {place}"
        comparison = Comparison(
            network=network,
            check="lockstep",
            dtype="float64",
            mode="train",
            layer=place,
            error=shown.error,
            budget=FLOAT64_BACKWARD,
            measure=shown.measure,
            note="" if shown.ok else f"at most {farthest.error:.1e}, at {farthest.place}",
        )
        found.append((np.inf if shown.ok else shown.step, comparison))
    return [comparison for _, comparison in sorted(found, key=lambda pair: pair[0])]
