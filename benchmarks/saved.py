"""Comparisons that ``--json`` has saved, read back: one, or several as one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.measure import CouldNotMeasureError
from benchmarks.plan import Options
from benchmarks.records import Ratio, Record
from benchmarks.run import Result


def read_result(files: Sequence[Path]) -> Result:
    """What the files hold, one after the other; date and versions are those of the last.

    Raises:
        CouldNotMeasureError: one can't be read or is no comparison, or they are of two devices.
    """
    results = [read_file(file)[1] for file in files]
    last = results[-1]
    for file, result in zip(files, results, strict=True):
        if result.head["device"] != last.head["device"]:
            raise CouldNotMeasureError(
                f"{file} was measured on {result.head['device']}, {files[-1]} on "
                f"{last.head['device']}: show them apart"
            )
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


def _result(document: dict[str, Any]) -> Result:
    return Result(
        head=document["head"],
        records=[Record(**values) for values in document["records"]],
        ratios=[Ratio(**values) for values in document["ratios"]],
        skipped=document["skipped"],
        limits=[Record(**values) for values in document["limits"]],
    )
