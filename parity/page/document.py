"""The JSON document of ``python -m parity --json`` in parts: its networks and checks.

Its fields are described in ``docs/parity.md``.
"""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from parity.comparison import CHECKS, MODES, NETWORK_CHECKS, Comparison, first_divergence

# What is made into networks and checks, and the lists of records that a document may hold besides.
PARTS = ("networks", "checks", "comparisons")
LISTS = ("drift", "mutants", "exceptions", "not_compared")


class DocumentError(ValueError):
    """It is no document of this suite; the message says where it differs from one."""


@dataclasses.dataclass(frozen=True)
class Subject:
    """All comparisons of a network, or of one check that stands for itself.

    Attributes:
        name: the network's, or the check's.
        comparisons: in the order in which they were made.
        seconds: wall time; None where it is not known.
    """

    name: str
    comparisons: tuple[Comparison, ...]
    seconds: float | None = None

    @property
    def out(self) -> tuple[Comparison, ...]:
        """The comparisons out of budget."""
        return tuple(c for c in self.comparisons if not c.ok)

    @property
    def first_divergence(self) -> Comparison | None:
        """The comparison out of budget that lies nearest the cause; None if all are within."""
        known = [c for c in self.out if c.check in CHECKS and c.mode in ("", *MODES)]
        return first_divergence(known) or next(iter(self.out), None)


@dataclasses.dataclass(frozen=True)
class Document:
    """A document in parts.

    Attributes:
        head: everything but networks, checks and comparisons: command, versions, drift, ...
        networks: in the order of the document.
        checks: those that stand for themselves, in the order in which they are first seen.
    """

    head: Mapping[str, Any]
    networks: tuple[Subject, ...]
    checks: tuple[Subject, ...]

    @property
    def comparisons(self) -> tuple[Comparison, ...]:
        """Every comparison."""
        return tuple(c for subject in (*self.networks, *self.checks) for c in subject.comparisons)

    @property
    def first_divergence(self) -> Comparison | None:
        """The first network's that is out of budget, else the first check's."""
        found = (subject.first_divergence for subject in (*self.networks, *self.checks))
        return next((comparison for comparison in found if comparison is not None), None)


def read(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        DocumentError: it is no JSON.
        OSError: it can't be read.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise DocumentError(f"{path} is no JSON ({error}); {_EXPECTED}") from None


def parse(document: Any) -> Document:
    """A document's networks and checks.

    Raises:
        DocumentError: it is no document of this suite.
    """
    if not isinstance(document, Mapping):
        raise DocumentError(f"found {type(document).__name__} where an object is; {_EXPECTED}")
    for key in ("networks", "comparisons"):
        if not isinstance(document.get(key), Sequence) or isinstance(document[key], str):
            raise DocumentError(f"there is no list {key!r} in it; {_EXPECTED}")
    for key in LISTS:
        _require_objects(document, key)
    seconds = {_name(entry, "network"): entry.get("seconds") for entry in document["networks"]}
    seconds_alone = {
        _name(each, "check"): each.get("seconds") for each in document.get("checks", ())
    }
    networks: dict[str, list[Comparison]] = {name: [] for name in seconds}
    checks: dict[str, list[Comparison]] = {}
    for index, record in enumerate(document["comparisons"]):
        comparison = _comparison(index, record)
        alone = comparison.check not in NETWORK_CHECKS or comparison.network not in networks
        group = checks.setdefault(comparison.check, []) if alone else networks[comparison.network]
        group.append(comparison)
    return Document(
        head={key: value for key, value in document.items() if key not in PARTS},
        # A standalone check's titles may be listed beside the networks.
        networks=tuple(Subject(name, tuple(c), seconds[name]) for name, c in networks.items() if c),
        checks=tuple(
            Subject(name, tuple(c), seconds_alone.get(name)) for name, c in checks.items()
        ),
    )


_EXPECTED = "a file that `python -m parity --json FILE` writes is expected"
_TEXTS = ("network", "check", "dtype", "mode", "layer", "measure", "note")


def _require_objects(document: Mapping[str, Any], key: str) -> None:
    records = document.get(key, ())
    whole = isinstance(records, Sequence) and all(isinstance(each, Mapping) for each in records)
    if not whole:
        raise DocumentError(f"{key!r} is no list of objects; {_EXPECTED}")


def _name(entry: Any, kind: str) -> str:
    if not isinstance(entry, Mapping) or not isinstance(entry.get(kind), str):
        raise DocumentError(f"'{kind}s' holds {entry!r}, which names no {kind}; {_EXPECTED}")
    return entry[kind]


def _comparison(index: int, record: Any) -> Comparison:
    try:
        values = {field.name: record[field.name] for field in dataclasses.fields(Comparison)}
        texts = all(isinstance(values[key], str) for key in _TEXTS)
        numbers = (values["error"], values["budget"], values["reference"])
        if not texts or not all(number is None or _is_number(number) for number in numbers):
            raise TypeError
    except (KeyError, TypeError):
        raise DocumentError(
            f"comparison {index + 1} is not whole: {json.dumps(record)[:200]}; {_EXPECTED}"
        ) from None
    for key in ("error", "budget"):
        values[key] = math.inf if values[key] is None else values[key]
    return Comparison(**values)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
