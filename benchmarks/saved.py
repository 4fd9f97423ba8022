"""Comparisons that ``--json`` has saved, read back: one, or several as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import CouldNotMeasureError
from benchmarks.plan import Options
from benchmarks.records import Ratio, Record
from benchmarks.run import Result
from benchmarks.table import title


def read_result(files: Sequence[Path]) -> Result:
    """What the files hold, one after the other; date and versions are those of the last.

    Raises:
        CouldNotMeasureError: one can't be read or is no comparison, or they don't go together.
    """
    results = [read_file(file)[1] for file in files]
    last = results[-1]
    _require_of_one_kind(files, [result.head["device"] for result in results])
    _require_of_one_kind(files, [result.head["options"]["work"] for result in results])
    _require_nothing_twice(files, results)
    skipped = {each["side"]: each for result in results for each in result.skipped}
    return Result(
        head=last.head,
        records=[record for result in results for record in result.records],
        ratios=[ratio for result in results for ratio in result.ratios],
        skipped=list(skipped.values()),
        limits=last.limits,
    )


def read_file(file: Path) -> tuple[Options, Result]:
    """What was asked for when a comparison was saved, and what was measured.

    Raises:
        CouldNotMeasureError: it can't be read, or is no comparison.
    """
    try:
        document = json.loads(file.read_text())
    except OSError as error:
        raise CouldNotMeasureError(f"{file}: {error.strerror}") from None
    except ValueError as error:
        raise CouldNotMeasureError(f"{file} is no JSON: {error}") from None
    try:
        return Options.from_dict(document["head"]["options"]), _result(document)
    except (KeyError, TypeError, ValueError) as error:
        raise CouldNotMeasureError(
            f"{file} is not what --json of this version writes: {error}"
        ) from None


def _require_of_one_kind(files: Sequence[Path], kinds: Sequence[Any]) -> None:
    """Raise where the files are of different devices, or works."""
    for file, kind in zip(files, kinds, strict=True):
        if kind != kinds[-1]:
            raise CouldNotMeasureError(
                f"{file} is of {kind}, {files[-1]} of {kinds[-1]}: show them apart"
            )


def _require_nothing_twice(files: Sequence[Path], results: Sequence[Result]) -> None:
    """Raise where two files have sides of one comparison, which did not take turns."""
    owners: dict[tuple[object, ...], Path] = {}
    for file, result in zip(files, results, strict=True):
        groups = {record.group: record for record in result.records}
        for group in groups.keys() & owners.keys():
            raise CouldNotMeasureError(
                f"{owners[group]} and {file} both have {title(groups[group])}: show one of them, "
                "or each apart"
            )
        owners |= dict.fromkeys(groups, file)


def _result(document: dict[str, Any]) -> Result:
    return Result(
        head=document["head"],
        records=[Record(**values) for values in document["records"]],
        ratios=[Ratio(**values) for values in document["ratios"]],
        skipped=document["skipped"],
        limits=[Record(**values) for values in document["limits"]],
    )
