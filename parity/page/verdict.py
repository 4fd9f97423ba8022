"""What a document of the suite says on the whole, in sentences."""

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from parity.comparison import Comparison
from parity.page.document import Document

# What a comparison is about, in a sentence; {} is the layer. Other checks go by their names.
SUBJECTS = {
    "parameters": "the number of parameters ({})",
    "names": "the layers and parameters that both sides have ({})",
    "isolated layers": "layer {} by itself",
    "layers": "the output of layer {}",
    "logits": "the network's output",
    "loss": "the loss",
    "layer gradients": "the gradient at the output of layer {}",
    "parameter gradients": "the gradient of parameter {}",
    "input gradient": "the gradient of the pictures",
    "statistics": "the statistic {}",
    "updates": "training in step with PyTorch ({})",
    "lockstep": "training in step with PyTorch ({})",
}
MODE_NAMES = {"eval": "evaluation", "train": "training"}
PASSES = {
    **dict.fromkeys(("layers", "logits", "loss", "statistics"), "forward pass"),
    **dict.fromkeys(("layer gradients", "parameter gradients", "input gradient"), "backward pass"),
}


def worst(comparisons: Iterable[Comparison]) -> Comparison:
    """The comparison that comes nearest to its budget, or exceeds it most.

    Raises:
        ValueError: there is none.
    """
    return max(comparisons, key=lambda c: (not c.ok, c.ratio))


@dataclasses.dataclass(frozen=True)
class Verdict:
    """What the document says on the whole.

    Attributes:
        good: everything that was to be compared is within budget, every mutant was found.
        word: "EQUAL", "NOT EQUAL", or "NOT COMPLETE" where nothing is out of budget but something
            could not be compared; of mutants alone "ALL FOUND" or "NOT ALL FOUND".
        sentences: what it rests on; the first divergence where there is one.
    """

    good: bool
    word: str
    sentences: tuple[str, ...]


def verdict(document: Document) -> Verdict:
    """The verdict over all comparisons and mutants, and over what could not be compared."""
    unable = document.head.get("not_compared", ())
    mutants = document.head.get("mutants", ())
    sentences = [f"Could not be compared: {len(unable)}."] if unable else []
    if mutants:
        sentences.append(_found(mutants))
    all_found = all(map(_is_found, mutants))
    comparisons = document.comparisons
    first = document.first_divergence
    if first is not None:
        out = sum(not comparison.ok for comparison in comparisons)
        sentences = [
            f"First divergence: {first.network}, {explain(first)}.",
            f"Out of budget are {out:,} of {len(comparisons):,} comparisons, in "
            f"{_counts(document, out=True)}.",
            *sentences,
        ]
        return Verdict(False, "NOT EQUAL", tuple(sentences))
    if comparisons:
        nearest = worst(comparisons)
        sentences = [
            f"All {len(comparisons):,} comparisons are within budget, in {_counts(document)}.",
            f"The nearest to it: {nearest.network}, {_subject(nearest)}, "
            f"with {100 * nearest.ratio:.1f} % of what it may be off.",
            *sentences,
        ]
    elif not mutants:
        sentences = ["Nothing was compared.", *sentences]
    if unable or not (comparisons or mutants):
        word = "NOT COMPLETE"
    elif mutants and not (comparisons and all_found):
        word = "ALL FOUND" if all_found else "NOT ALL FOUND"
    else:
        word = "EQUAL"
    return Verdict(word in ("EQUAL", "ALL FOUND"), word, tuple(sentences))


def _is_found(mutant: Mapping[str, Any]) -> bool:
    return bool(mutant.get("caught") and mutant.get("located"))


def _found(mutants: Sequence[Mapping[str, Any]]) -> str:
    """How many mutants were caught and located, and which were not."""
    missed = [str(mutant.get("name", "")) for mutant in mutants if not _is_found(mutant)]
    if not missed:
        return f"All {len(mutants)} mutants were caught and located."
    caught, located = (
        sum(bool(mutant.get(key)) for mutant in mutants) for key in ("caught", "located")
    )
    return (
        f"Of {len(mutants)} mutants {caught} were caught and {located} located; "
        f"not both: {', '.join(missed)}."
    )


def _counts(document: Document, *, out: bool = False) -> str:
    """The number of networks and of standalone checks, or of those that have something out."""
    counts = []
    for subjects, what in ((document.networks, "network"), (document.checks, "standalone check")):
        if subjects:
            divergent = f"{sum(bool(subject.out) for subject in subjects):,} of " if out else ""
            counts.append(f"{divergent}{len(subjects):,} {what}{'s' * (len(subjects) != 1)}")
    return " and ".join(counts)


def explain(comparison: Comparison) -> str:
    """A comparison out of budget as a sentence, without its network."""
    note = f" [{comparison.note}]" if comparison.note else ""
    return f"{_subject(comparison)} {_amount(comparison)}{note}"


def pass_of(comparison: Comparison) -> str:
    """Which of the network's passes it is about; "" where it is neither, or both."""
    if comparison.check == "isolated layers" and comparison.note:
        return "backward pass" if comparison.note.startswith("gradient") else "forward pass"
    return PASSES.get(comparison.check, "")


def _subject(comparison: Comparison) -> str:
    mode = MODE_NAMES.get(comparison.mode, comparison.mode)
    where = ", ".join(filter(None, (comparison.dtype, mode, pass_of(comparison))))
    if comparison.check in SUBJECTS:
        about = SUBJECTS[comparison.check].format(comparison.layer).replace(" ()", "")
    else:
        about = ", ".join(filter(None, (comparison.check, comparison.layer)))
    return f"{about} ({where})" if where else about


def _amount(comparison: Comparison) -> str:
    error, budget = comparison.error, comparison.budget
    if not math.isfinite(error):
        return "can't be compared: it has no finite error"
    if not budget:
        return f"is off by {_number(error)}, and must be exact"
    if not math.isfinite(budget):
        return f"is off by {_number(error)}, and has no finite budget"
    times = f"{_number(comparison.ratio)} times as much"
    return f"is off by {_number(error)} where {_number(budget)} is allowed, {times}"


def _number(value: float) -> str:
    """Three digits, or more before the point; with an exponent where it is small or large."""
    if 100 <= value < 1e6:
        return f"{value:,.0f}"
    return f"{value:.3g}" if 0.01 <= value < 100 or value == 0 else f"{value:.2e}"
