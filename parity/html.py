"""A document of the suite as one self-contained HTML page.

From a file that ``python -m parity --json RESULT.json`` has written:
``python -m parity.html RESULT.json REPORT.html``.
"""

import argparse
import dataclasses
import datetime
import json
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from importlib import resources
from pathlib import Path
from typing import Any

import jinja2
from markupsafe import Markup, escape

from parity.comparison import CHECKS, Comparison
from parity.page.compact import pack, rounded
from parity.page.document import LISTS, Document, DocumentError, Subject, parse, read
from parity.page.matrix import Cell, Matrix, by_check, by_mode, make_cell, make_matrix
from parity.page.verdict import MODE_NAMES, explain, verdict
from parity.report import whole_file

SHOWN_FAILURES = 8
COULD_NOT_RUN = 2


@dataclasses.dataclass(frozen=True)
class Entry:
    """What the page shows of one network, or of one check that stands for itself.

    Attributes:
        name: its name.
        anchor: its element's name.
        about: what it is, in words.
        nearest: its comparison that is nearest to its budget.
        facts: short texts for its line.
        failures: the first comparisons out of budget, as sentences.
        more: how many more there are.
        matrix: for a check, its titles by dtype and mode.
        data: for the script: its comparisons and training runs.
    """

    name: str
    anchor: str
    about: str
    nearest: Cell
    facts: tuple[str, ...]
    failures: tuple[str, ...]
    more: int
    matrix: Matrix | None
    data: Mapping[str, Any]


def write_html(document: Mapping[str, Any], path: Path) -> None:
    """Write the page of a document, whole or not at all.

    Args:
        document: as ``parity.report.to_json`` makes it.
        path: of the page.

    Raises:
        DocumentError: it is no document of this suite.
        OSError: the page can't be written.
    """
    page = render(document)
    with whole_file(path) as file:
        file.write(page)


def render(document: Mapping[str, Any]) -> str:
    """The page of a document.

    Raises:
        DocumentError: it is no document of this suite.
    """
    parsed = parse(document)
    lists = {key: parsed.head.get(key, ()) for key in LISTS}
    drift: dict[str, list[Mapping[str, Any]]] = {}
    for record in lists["drift"]:
        drift.setdefault(str(record.get("network", "")), []).append(record)
    names = {subject.name for subject in parsed.networks}
    subjects = [*parsed.networks, *(Subject(name, ()) for name in drift if name not in names)]
    networks = [
        _entry(subject, f"network-{index}", drift.get(subject.name, ()))
        for index, subject in enumerate(subjects)
    ]
    checks = [_entry(check, f"check-{index}", ()) for index, check in enumerate(parsed.checks)]
    return _template().render(
        verdict=verdict(parsed),
        matrix=make_matrix(((each.name, each.comparisons) for each in parsed.networks), by_check),
        networks=networks,
        checks=[
            dataclasses.replace(entry, about=CHECKS.get(entry.name, ""), matrix=_by_title(check))
            for entry, check in zip(checks, parsed.checks, strict=True)
        ],
        descriptions=CHECKS,
        lists=lists,
        run=_run(parsed),
        modes={"": "any", **MODE_NAMES},
        css=_text("page.css"),
        script=_text("page.js"),
    )


def _entry(subject: Subject, anchor: str, drift: Sequence[Mapping[str, Any]]) -> Entry:
    comparisons, out = subject.comparisons, subject.out
    facts = [f"{len(comparisons):,} comparisons"] if comparisons else ["not compared"]
    if out:
        facts.append(f"{len(out):,} out of budget")
    parameters = next((c.note for c in comparisons if c.check == "parameters" and c.note), "")
    if parameters:
        facts.append(f"{parameters.partition(' ')[0]} parameters")
    if subject.seconds is not None:
        facts.append(f"{subject.seconds:.1f} s")
    first = subject.first_divergence
    shown = list(dict.fromkeys([first, *out] if first else out))[:SHOWN_FAILURES]
    return Entry(
        name=subject.name,
        anchor=anchor,
        about="",
        nearest=make_cell(comparisons),
        facts=tuple(facts),
        failures=tuple(_sentence(comparison, subject.name) for comparison in shown),
        more=len(out) - len(shown),
        matrix=None,
        data=pack(comparisons) | {"drift": _packed_drift(drift)},
    )


def _sentence(comparison: Comparison, subject: str) -> str:
    """A comparison out of budget; for a check that stands for itself, with its title."""
    title = "" if comparison.network == subject else f"{comparison.network}: "
    return f"{title}{explain(comparison)}"


def _packed_drift(records: Sequence[Mapping[str, Any]]) -> dict[str, dict[str, list[Any]]]:
    """Training runs, by side and quantity; "steps" counts from 1."""
    sides: dict[str, dict[str, list[Any]]] = {}
    try:
        for record in records:
            side = sides.setdefault(record["side"], {"step": [], "loss": [], "distance": []})
            for key, values in side.items():
                values.append(rounded(record[key]))
    except (KeyError, TypeError, ValueError) as error:
        raise DocumentError(f"a record of 'drift' is not whole ({error!r})") from None
    return sides


def _by_title(check: Subject) -> Matrix:
    titles: dict[str, list[Any]] = {}
    for comparison in check.comparisons:
        titles.setdefault(comparison.network, []).append(comparison)
    return make_matrix(titles.items(), by_mode)


def _run(document: Document) -> dict[str, dict[str, Any]]:
    """What was run, where and with what, in tables."""
    head = {key: value for key, value in document.head.items() if key not in LISTS}
    tables = {key: dict(value) for key, value in head.items() if isinstance(value, Mapping)}
    run = {key: value for key, value in head.items() if key not in tables}
    if isinstance(run.get("seconds"), int | float):
        run["seconds"] = (
            f"{run['seconds']:,.1f} ({datetime.timedelta(seconds=round(run['seconds']))} h)"
        )
    return {"run": run, **tables}


def _template() -> jinja2.Template:
    environment = jinja2.Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=jinja2.StrictUndefined
    )
    filters: dict[str, Callable[..., Any]] = {
        "breakable": _breakable,
        "begun": _begun,
        "data": _data,
        "keys": _keys,
        "value": _value,
    }
    environment.filters |= filters
    return environment.from_string(_text("page.html"))


def _text(name: str) -> Markup:
    return Markup(resources.files("parity.page").joinpath(name).read_text(encoding="utf-8"))


def _breakable(name: str) -> Markup:
    """A long name that may go on in the next line after an underscore or a point."""
    return Markup(re.sub(r"([_.])", r"\1<wbr>", str(escape(name))))


def _data(value: Any) -> Markup:
    """JSON that can't end the script element that it stands in, nor begin a comment."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False)
    return Markup(text.replace("<", r"\u003c"))


def _begun(text: str) -> str:
    """The beginning of a sentence."""
    return text[:1].upper() + text[1:]


def _keys(records: Sequence[Mapping[str, Any]]) -> list[str]:
    """All keys of some records, in the order in which they are first seen."""
    return list(dict.fromkeys(key for record in records for key in record))


def _value(value: Any) -> str:
    """A value of a record, for a table."""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, list | tuple):
        return ", ".join(map(_value, value))
    return "" if value is None else str(value)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m parity.html", description="Make an HTML page of a JSON result."
    )
    parser.add_argument("result", type=Path, metavar="RESULT.json")
    parser.add_argument("report", type=Path, metavar="REPORT.html")
    options = parser.parse_args(arguments)
    try:
        write_html(read(options.result), options.report)
    except DocumentError as error:
        print(f"parity.html: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    except OSError as error:
        print(f"parity.html: {error.strerror}: {error.filename}", file=sys.stderr)
        return COULD_NOT_RUN
    return 0


if __name__ == "__main__":
    sys.exit(main())
