"""A result as tables for a document: ``python -m parity.tables RESULT.json``.

RESULT.json is what ``python -m parity --json RESULT.json`` writes. Of every network, and of groups
of them, the tables have the largest errors, and in float32 the largest shares of the budget, which
other comparisons may have; of every standalone check, its share and its time; of mutants, what was
found.
"""

import argparse
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path

from parity.comparison import Comparison
from parity.mutants.mutant import MutantResult
from parity.mutants.results import to_markdown
from parity.page.document import Document, DocumentError, Subject, parse, read

FORWARD = ("layers", "logits", "loss", "statistics")
BACKWARD = ("layer gradients", "parameter gradients", "input gradient")
GROUPS = {"upstream, ": "small networks of other code bases"}
ERRORS = (FORWARD, BACKWARD, ("updates",))
SHARES = (FORWARD, BACKWARD, ("isolated layers",))
HEADS = (
    *("float64: forward", "backward", "updates"),
    *("float32: forward", "backward", "isolated layers"),
)


def main(arguments: list[str] | None = None) -> int:
    """Print the tables; 0, or 2 where the file can't be read."""
    parser = argparse.ArgumentParser(
        prog="python -m parity.tables", description=(__doc__ or "").partition("\n")[0]
    )
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    path = parser.parse_args(arguments).result
    try:
        document = parse(read(path))
        print("\n\n".join(tables(document)))
    except (DocumentError, OSError) as error:
        print(f"parity.tables: {error}", file=sys.stderr)
        return 2
    return 0


def tables(document: Document) -> Iterator[str]:
    """The tables that the document has something for, in Markdown."""
    if document.networks:
        yield _groups(document.networks)
        yield _networks(document.networks)
    if document.checks:
        yield _checks(document.checks)
    if mutants := document.head.get("mutants"):
        yield to_markdown([MutantResult(**record) for record in mutants])


def _networks(networks: Sequence[Subject]) -> str:
    rows = (
        (each.name, _parameters(each), *_figures(each.comparisons))
        for each in networks
        if _is_named(each)
    )
    return _table(("network", "parameters", *HEADS), rows)


def _groups(networks: Sequence[Subject]) -> str:
    groups: dict[str, list[Subject]] = {}
    for each in networks:
        other = (name for start, name in GROUPS.items() if each.name.startswith(start))
        title = "named networks" if _is_named(each) else next(other, "options beside their names")
        groups.setdefault(title, []).append(each)
    rows = []
    for title, members in groups.items():
        comparisons = [comparison for each in members for comparison in each.comparisons]
        counts = (str(len(members)), f"{len(comparisons):,}", _out(comparisons))
        rows.append((title, *counts, *_figures(comparisons)))
    return _table(("", "networks", "comparisons", "out of budget", *HEADS), rows)


def _checks(checks: Sequence[Subject]) -> str:
    rows = []
    for each in checks:
        count, seconds = f"{len(each.comparisons):,}", each.seconds
        share = _share(each.comparisons)
        time = "" if seconds is None else f"{seconds:.0f}"
        rows.append((each.name, count, _out(each.comparisons), share, time))
    heads = ("check", "comparisons", "out of budget", "share of the budget, at most", "seconds")
    return _table(heads, rows)


def _is_named(network: Subject) -> bool:
    """Whether its number of parameters has been published."""
    return any(c.check == "parameters" and "published" in c.note for c in network.comparisons)


def _parameters(network: Subject) -> str:
    notes = (c.note for c in network.comparisons if c.check == "parameters")
    return next(notes).partition(" ")[0]


def _figures(comparisons: Sequence[Comparison]) -> Iterator[str]:
    def chosen(checks: Collection[str], dtype: str) -> list[Comparison]:
        return [c for c in comparisons if c.check in checks and c.dtype == dtype]

    for checks in ERRORS:
        yield _error(chosen(checks, "float64"))
    for checks in SHARES:
        found = chosen(checks, "float32")
        yield f"{_error(found)} ({_share(found)})" if found else ""


def _error(comparisons: Collection[Comparison]) -> str:
    return f"{max(comparison.error for comparison in comparisons):.1e}" if comparisons else ""


def _share(comparisons: Iterable[Comparison]) -> str:
    ratios = [comparison.ratio for comparison in comparisons]
    if not any(ratios):
        return "exact" if ratios else ""
    return f"{100 * max(ratios):.0f} %"


def _out(comparisons: Iterable[Comparison]) -> str:
    return f"{sum(not comparison.ok for comparison in comparisons):,}"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    sys.exit(main())
