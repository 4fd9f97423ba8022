"""Comparisons as a matrix: in every cell the one that comes nearest to its budget."""

import dataclasses
import math
from collections.abc import Callable, Iterable, Mapping, Sequence

from parity.budget import DTYPES
from parity.comparison import CHECKS, MODES, Comparison
from parity.page.verdict import MODE_NAMES, worst

# A share of the budget from which on a cell has the next colour.
LEVELS = (0.25, 0.5, 0.75)
LARGEST = 1e300  # JavaScript has no order among infinities' differences

Column = tuple[str, str]


@dataclasses.dataclass(frozen=True)
class Cell:
    """What one cell shows.

    Attributes:
        text: the share of the budget, or how far out of it; "" where nothing was compared.
        level: "none", "exact", "level0" to "level3", or "out".
        title: the comparison in words.
        ratio: error over budget, at most ``LARGEST``.
    """

    text: str
    level: str
    title: str
    ratio: float = 0.0


@dataclasses.dataclass(frozen=True)
class Row:
    """One row.

    Attributes:
        name: what was compared.
        cells: one for each column.
        nearest: the row's cell that comes nearest to its budget.
        out: number of comparisons out of budget.
        count: number of comparisons.
    """

    name: str
    cells: tuple[Cell, ...]
    nearest: Cell
    out: int
    count: int


@dataclasses.dataclass(frozen=True)
class Matrix:
    """Rows under two lines of heads.

    Attributes:
        heads: the upper heads, each with the lower heads below it.
        rows: as many cells each as there are lower heads.
    """

    heads: Mapping[str, Sequence[str]]
    rows: tuple[Row, ...]


def by_check(comparison: Comparison) -> Column:
    """A column a check and dtype."""
    return comparison.check, comparison.dtype


def by_mode(comparison: Comparison) -> Column:
    """A column a dtype and mode."""
    return comparison.dtype, comparison.mode


def make_matrix(
    rows: Iterable[tuple[str, Iterable[Comparison]]], column_of: Callable[[Comparison], Column]
) -> Matrix:
    """Arrange comparisons; there is a column only for what was compared.

    Args:
        rows: the name and the comparisons of each row.
        column_of: the upper and lower head that a comparison stands under.
    """
    known = {name: index for index, name in enumerate(("", *CHECKS, *DTYPES, *MODES))}
    groups: list[tuple[str, dict[Column, list[Comparison]]]] = []
    for name, comparisons in rows:
        cells: dict[Column, list[Comparison]] = {}
        for comparison in comparisons:
            cells.setdefault(column_of(comparison), []).append(comparison)
        groups.append((name, cells))
    columns = sorted(
        {column: None for _, cells in groups for column in cells},
        key=lambda column: [known.get(head, len(known)) for head in column],
    )
    heads: dict[str, list[str]] = {}
    for upper, lower in columns:
        heads.setdefault(upper, []).append(lower)
    return Matrix(heads, tuple(_row(name, cells, columns) for name, cells in groups))


def _row(name: str, cells: Mapping[Column, Sequence[Comparison]], columns: Iterable[Column]) -> Row:
    everything = [comparison for group in cells.values() for comparison in group]
    return Row(
        name,
        tuple(make_cell(cells.get(column, ())) for column in columns),
        make_cell(everything),
        sum(not comparison.ok for comparison in everything),
        len(everything),
    )


def make_cell(comparisons: Sequence[Comparison]) -> Cell:
    """The cell of these comparisons."""
    if not comparisons:
        return Cell("", "none", "not compared")
    nearest = worst(comparisons)
    ratio = min(nearest.ratio, LARGEST)
    return Cell(share(nearest), _level(nearest), _title(nearest, comparisons), ratio)


def share(comparison: Comparison) -> str:
    """The share of its budget that a comparison uses, or how many times it is beyond."""
    ratio = comparison.ratio
    if comparison.ok:
        if not comparison.budget:
            return "exact"
        return "<1 %" if ratio < 0.01 else f"{ratio:.0%}".replace("%", " %")
    if not math.isfinite(ratio) or not math.isfinite(comparison.budget):
        return "differs"
    times = (
        f"{ratio:.3g}" if ratio < 1000 else f"{ratio:.0e}".replace("e+0", "e").replace("e+", "e")
    )
    return f"{times}\N{MULTIPLICATION SIGN}"


def _level(comparison: Comparison) -> str:
    if not comparison.ok:
        return "out"
    if not comparison.budget:
        return "exact"
    return f"level{sum(comparison.ratio >= level for level in LEVELS)}"


def _title(nearest: Comparison, comparisons: Sequence[Comparison]) -> str:
    mode = MODE_NAMES.get(nearest.mode, nearest.mode)
    place = ", ".join(filter(None, (nearest.check, nearest.layer, nearest.dtype, mode)))
    out = sum(not comparison.ok for comparison in comparisons)
    count = f"{len(comparisons):,} comparisons" if len(comparisons) > 1 else "1 comparison"
    budget = f", {nearest.budget:.1e} allowed" if nearest.budget else ", must be exact"
    error = f"{nearest.error:.1e}" if math.isfinite(nearest.error) else "not finite"
    return f"{place}: off by {error}{budget} ({count}{f', {out:,} out of budget' if out else ''})"
