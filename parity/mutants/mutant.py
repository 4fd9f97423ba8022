"""What a mutant is, and when it counts as located."""

import dataclasses
import re
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from parity.comparison import Comparison
from parity.report import describe

REFUSAL = "refusal"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a mistake is, as the report has to name it.

    It is written down by what the mistake is, not by what the suite says of it.

    Attributes:
        check: one of ``parity.comparison.CHECKS``; or ``REFUSAL``, where the network can't even be
            built and the message has to name the place.
        layer: the layer, state-dict key, or part of training; "" where the check tells all.
        subject: title of what is compared, for a check that compares several things.
    """

    check: str
    layer: str = ""
    subject: str = ""

    def __str__(self) -> str:
        return ": ".join(filter(None, (self.check, self.subject, self.layer)))

    def is_named_by(self, found: Comparison) -> bool:
        """Whether a comparison is of this place, or of the module that contains it."""
        # "optimizer: step 2: momentum of fc.bias" is the optimizer, "layer1.0" contains conv1.
        parts = re.split("[,:] ", found.layer)
        named = not self.layer or self.layer in parts or self.layer.startswith(f"{found.layer}.")
        return found.check == self.check and named and self.subject in found.network


def output_of(layer: str) -> Place:
    """The output of a layer that is right by itself, or of a block: what it is given is wrong."""
    return Place("layers", layer)


@dataclasses.dataclass(frozen=True)
class Mutant:
    """A mistake of a port that the suite has to notice, and to locate.

    Attributes:
        name: unique.
        description: the mistake in a line.
        expected: where it is.
        subject: key of ``parity.mutants.subjects.SUBJECTS``: the smallest that shows it.
        change: gives the context manager that makes the mistake.
    """

    name: str
    description: str
    expected: Place
    subject: str
    change: Callable[[], AbstractContextManager[None]]


@dataclasses.dataclass(frozen=True)
class MutantResult:
    """What the suite says of a mutant.

    Attributes:
        name: the mutant's.
        description: the mutant's.
        expected: the mutant's place in words.
        caught: whether anything was out of budget, or the network was refused.
        located: whether the first divergence, or the refusal, names the place.
        found: the first divergence, or the refusal, in words; "" where there is none.
        seconds: wall time.
    """

    name: str
    description: str
    expected: str
    caught: bool
    located: bool
    found: str
    seconds: float

    def record(self) -> dict[str, Any]:
        """The result for a JSON document."""
        return dataclasses.asdict(self) | {"seconds": round(self.seconds, 2)}


def found_in_words(comparison: Comparison) -> str:
    """A divergence, with what was compared where the check compares several things."""
    return f"{comparison.network}: {describe(comparison)}"
