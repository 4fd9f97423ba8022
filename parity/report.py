"""What a person, or a program, reads of the comparisons."""

import contextlib
import dataclasses
import json
import math
import os
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TextIO

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity.comparison import CHECKS, Comparison, first_divergence

PLAIN_WIDTH = 140  # columns where the output is no terminal


@dataclasses.dataclass(frozen=True)
class NetworkReport:
    """All comparisons of one network, or of one check that needs none.

    Attributes:
        network: its name, or the check's.
        comparisons: in the order in which they were made.
        seconds: wall time of building and comparing.
        standalone: whether it is of such a check.
        drift: records of ``parity.drift``, where training was followed.
    """

    network: str
    comparisons: tuple[Comparison, ...]
    seconds: float
    standalone: bool = False
    drift: tuple[dict[str, Any], ...] = ()

    @property
    def ok(self) -> bool:
        """Whether there is something, and everything is within budget."""
        return bool(self.comparisons) and all(comparison.ok for comparison in self.comparisons)

    @property
    def first_divergence(self) -> Comparison | None:
        """The comparison out of budget that lies nearest the cause; None if all are within."""
        return first_divergence(self.comparisons)

    def worst(self, check: str, dtype: str | None = None) -> Comparison | None:
        """The comparison of a check that comes nearest to its budget, or exceeds it most."""
        chosen = [c for c in self.comparisons if c.check == check and dtype in (None, c.dtype)]
        return max(chosen, key=lambda c: c.ratio, default=None)


def make_console(**options: Any) -> Console:
    """A console that writes plain text of a fixed width where it is no terminal."""
    console = Console(highlight=False, **options)
    return (
        console if console.is_terminal else Console(highlight=False, width=PLAIN_WIDTH, **options)
    )


def print_network(console: Console, report: NetworkReport) -> None:
    """The table of layers, the other checks in short, parameter counts and the verdict."""
    console.print(f"{report.network}: output of every layer, in execution order")
    console.print(_layer_table(report, console))
    console.print("every check: the comparison nearest to its budget")
    console.print(_check_table(report, console))
    failures = [c for c in report.comparisons if not c.ok and c.check != "layers"]
    for comparison in failures[:20]:
        console.print(Text(f"  out: {describe(comparison)}", style="red"))
    if len(failures) > 20:
        console.print(f"  ... and {len(failures) - 20} more")
    counts = [c for c in report.comparisons if c.check == "parameters"]
    console.print("parameters: " + "; ".join(f"{c.layer} {c.note}" for c in counts))
    console.print(verdict(report), soft_wrap=True)


def verdict(report: NetworkReport) -> Text:
    """One line: equal, or where the first divergence is."""
    first = report.first_divergence
    total = len(report.comparisons)
    if first is None:
        return Text(
            f"EQUAL: {report.network}, {total} comparisons within budget, {report.seconds:.1f} s",
            style="green",
        )
    bad = sum(not comparison.ok for comparison in report.comparisons)
    return Text(
        f"NOT EQUAL: {report.network}, {bad} of {total} comparisons out of budget; "
        f"first divergence: {describe(first)}",
        style="bold red",
    )


def describe(comparison: Comparison) -> str:
    """A comparison in words."""
    where = " ".join(filter(None, (comparison.dtype, comparison.mode)))
    numbers = f"error {comparison.error:.2e}, budget {comparison.budget:.2e}"
    parts = (comparison.check, comparison.layer, f"({where})" if where else "", numbers)
    text = " ".join(filter(None, parts))
    return f"{text} [{comparison.note}]" if comparison.note else text


def _layer_table(report: NetworkReport, console: Console) -> Table:
    layers = [c for c in report.comparisons if c.check == "layers"]
    columns = list(dict.fromkeys((c.mode, c.dtype) for c in layers))
    table = _table(console)
    table.add_column("layer", overflow="fold")
    for mode, dtype in columns:
        table.add_column(f"{mode} {dtype}", justify="right")
        if dtype == "float32":
            table.add_column("budget", justify="right")
    cells = {(c.layer, c.mode, c.dtype): c for c in layers}
    for layer in dict.fromkeys(c.layer for c in layers):
        row: list[Text] = [Text(layer)]
        for mode, dtype in columns:
            comparison = cells.get((layer, mode, dtype))
            row.append(_error(comparison) if comparison else Text("-"))
            if dtype == "float32":
                row.append(Text(f"{comparison.budget:.1e}" if comparison else "-", style="dim"))
        table.add_row(*row)
    return table


def _check_table(report: NetworkReport, console: Console) -> Table:
    table = _table(console)
    for column in ("check", "dtype", "mode", "comparisons", "where"):
        table.add_column(column, justify="right" if column == "comparisons" else "left")
    for column in ("error", "budget", "PyTorch's own"):
        table.add_column(column, justify="right")
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in report.comparisons:
        key = comparison.check, comparison.dtype, comparison.mode
        groups.setdefault(key, []).append(comparison)
    for (check, dtype, mode), comparisons in sorted(
        groups.items(), key=lambda item: list(CHECKS).index(item[0][0])
    ):
        worst = max(comparisons, key=lambda c: c.ratio)
        own = "" if worst.reference is None else f"{worst.reference:.1e}"
        count = str(len(comparisons))
        where = worst.layer if worst.error else ""
        table.add_row(check, dtype, mode, count, where, _error(worst), f"{worst.budget:.1e}", own)
    return table


def summary_header() -> str:
    """The column heads of ``summary_line``: worst errors, with float32's share of its budget."""
    return (
        f"{'network':<40}{'':<10}{'layers f64':>11}{'f32':>16}{'gradients f64':>15}{'f32':>16}"
        f"{'statistics f64':>15}{'f32':>16}{'parameters':>13}{'seconds':>8}"
    )


def summary_line(report: NetworkReport) -> Text:
    """One line a network, or a check that needs none."""
    if report.standalone:
        return _standalone_line(report)

    def cell(check: str, dtype: str) -> str:
        worst = report.worst(check, dtype)
        if worst is None:
            return "-"
        return f"{worst.error:.1e}" + (f" {worst.ratio:6.1%}" if dtype == "float32" else "")

    count = next((c.note for c in report.comparisons if c.check == "parameters"), "-")
    line = (
        f"{report.network:<40}{'equal' if report.ok else 'NOT EQUAL':<10}"
        f"{cell('layers', 'float64'):>11}{cell('layers', 'float32'):>16}"
        f"{cell('parameter gradients', 'float64'):>15}{cell('parameter gradients', 'float32'):>16}"
        f"{cell('statistics', 'float64'):>15}{cell('statistics', 'float32'):>16}"
        f"{count.split(' ')[0]:>13}{report.seconds:>8.1f}"
    )
    return Text(line, style="" if report.ok else "bold red")


def _standalone_line(report: NetworkReport) -> Text:
    worst = max(report.comparisons, key=lambda c: c.ratio)
    nearest = f"; at most {worst.ratio:.1%} of its budget" if worst.budget else ""
    line = (
        f"{report.network:<40}{'equal' if report.ok else 'NOT EQUAL':<10}"
        f"{f'{len(report.comparisons):,} comparisons{nearest}':<96}{report.seconds:>24.1f}"
    )
    return Text(line, style="" if report.ok else "bold red")


def print_checks(console: Console, report: NetworkReport) -> None:
    """A check that needs no network: for each of its subjects the comparison nearest its budget."""
    table = _table(console)
    for column in ("subject", "dtype", "mode", "comparisons", "nearest its budget"):
        table.add_column(column, justify="right" if column == "comparisons" else "left")
    for column in ("error", "budget"):
        table.add_column(column, justify="right")
    groups: dict[tuple[str, str, str], list[Comparison]] = {}
    for comparison in report.comparisons:
        key = comparison.network, comparison.dtype, comparison.mode
        groups.setdefault(key, []).append(comparison)
    for (subject, dtype, mode), comparisons in groups.items():
        worst = max(comparisons, key=lambda c: c.ratio)
        table.add_row(
            *(subject, dtype, mode, str(len(comparisons)), worst.layer),
            *(_error(worst), f"{worst.budget:.1e}"),
        )
    console.print(table)


def _table(console: Console) -> Table:
    return Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2, pad_edge=False)


def _error(comparison: Comparison) -> Text:
    if comparison.ok:
        return Text(f"{comparison.error:.1e}")
    return Text(f"{comparison.error:.1e} OUT", style="bold red")


def to_json(head: dict[str, Any], reports: Sequence[NetworkReport]) -> dict[str, Any]:
    """A JSON document: the head, a line a network, and a record a comparison.

    An infinite error (shapes differ, a layer is missing, a value is not finite) is null.
    """
    networks = [
        {"network": r.network, "ok": r.ok, "seconds": round(r.seconds, 2)}
        for r in reports
        if not r.standalone
    ]
    checks = [
        {"check": r.network, "ok": r.ok, "seconds": round(r.seconds, 2)}
        for r in reports
        if r.standalone
    ]
    drift = [_all_finite(record) for r in reports for record in r.drift]
    comparisons = [
        _all_finite(dataclasses.asdict(c)) | {"ok": c.ok} for r in reports for c in r.comparisons
    ]
    lists = {"networks": networks, "checks": checks, "comparisons": comparisons}
    return head | ({"drift": drift} if drift else {}) | lists


def _all_finite(record: dict[str, Any]) -> dict[str, Any]:
    """The record with None for numbers that JSON has no word for."""
    return {
        key: None if isinstance(value, float) and not math.isfinite(value) else value
        for key, value in record.items()
    }


def write_json(path: Path, document: dict[str, Any]) -> None:
    """Write a JSON file whole or not at all.

    Raises:
        OSError: it can't be written.
    """
    with whole_file(path) as file:
        json.dump(document, file, indent=1, allow_nan=False)
        file.write("\n")


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that stands under its name only once the context has ended without an error.

    Raises:
        OSError: it can't be written.
    """
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            yield file
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def all_ok(reports: Iterable[NetworkReport]) -> bool:
    """Whether every network is equal."""
    return all(report.ok for report in reports)
