"""What a person reads of the mutants."""

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.table import Table
from rich.text import Text

from parity.mutants.catalogue import MUTANTS
from parity.mutants.mutant import MutantResult

LONGEST_FOUND = 160  # characters in a document


def print_results(console: Console, results: Sequence[MutantResult]) -> None:
    """A table with a line for each mutant, and how many were caught and located."""
    table = Table(pad_edge=False)
    for column in ("mutant", "expected", "found"):
        table.add_column(column, overflow="fold")
    for column in ("caught", "located"):
        table.add_column(column, no_wrap=True)
    for result in _in_order(results):
        style = "" if result.caught and result.located else "bold red"
        marks = (_yes(result.caught), _yes(result.located))
        cells = (result.name, result.expected, result.found, *marks)
        table.add_row(*(Text(cell, style) for cell in cells))
    console.print(table)
    console.print(verdict(results))


def verdict(results: Sequence[MutantResult]) -> str:
    """How many were caught and located: "caught 63 of 63, located 62 of 63"."""
    total = len(results)
    caught = sum(result.caught for result in results)
    located = sum(result.located for result in results)
    return f"caught {caught} of {total}, located {located} of {total}"


def to_markdown(results: Sequence[MutantResult]) -> str:
    """The table for a document."""
    lines = [
        "| mutant | the mistake | expected | found | caught | located |",
        "|---|---|---|---|---|---|",
    ]
    for result in _in_order(results):
        marks = (_yes(result.caught), _yes(result.located))
        found = textwrap.shorten(result.found, LONGEST_FOUND, placeholder=" ...")
        cells = (result.name, result.description, result.expected, found, *marks)
        lines.append("| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |")
    return "\n".join([*lines, "", verdict(results) + ".", ""])


def _in_order(results: Sequence[MutantResult]) -> list[MutantResult]:
    """As the catalogue has them, not as they were done."""
    position = {name: number for number, name in enumerate(MUTANTS)}
    return sorted(results, key=lambda result: position.get(result.name, len(position)))


def _yes(value: bool) -> str:
    return "yes" if value else "NO"
