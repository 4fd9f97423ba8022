"""A subject's comparisons, small enough that a page holds those of all networks.

Of a group of comparisons that share check, dtype and mode only what differs is kept: numbers with
three digits, every list of layers and every note once. ``parity/page/page.js`` reads it.
"""

import math
from collections.abc import Iterable, Sequence
from typing import Any

from parity.comparison import CHECKS, Comparison


def pack(comparisons: Iterable[Comparison]) -> dict[str, Any]:
    """Comparisons as an object for JSON.

    Returns:
        "groups", each with "title" (the network's name), "check", "dtype", "mode", "layers" (index
        into "layers"), "errors", "budgets" and "own" (float32 PyTorch's) with a number a layer;
        "measures", a letter a layer; "notes", an index into "notes" a layer; "out", the places of
        those out of budget. One value stands for many that are the same; an infinite one is null.
    """
    groups: dict[tuple[str, str, str, str], list[Comparison]] = {}
    for one in comparisons:
        groups.setdefault((one.network, one.check, one.dtype, one.mode), []).append(one)
    order = list(CHECKS)
    layers: dict[tuple[str, ...], int] = {}
    notes = {"": 0}
    packed = [
        {
            "title": title,
            "check": check,
            "dtype": dtype,
            "mode": mode,
            "layers": layers.setdefault(tuple(each.layer for each in group), len(layers)),
            "errors": _once([rounded(each.error) for each in group]),
            "budgets": _once([rounded(each.budget) for each in group]),
            "own": _once([rounded(each.reference) for each in group]),
            "measures": _once("".join(each.measure[:1] for each in group)),
            "notes": _once([notes.setdefault(each.note, len(notes)) for each in group]),
            "out": [place for place, each in enumerate(group) if not each.ok],
        }
        for (title, check, dtype, mode), group in sorted(
            groups.items(), key=lambda item: order.index(item[0][1]) if item[0][1] in order else -1
        )
    ]
    return {"layers": list(layers), "notes": list(notes), "groups": packed}


def rounded(value: float | None) -> float | None:
    """A number with three digits, whole ones without a point; None where it is not finite."""
    if value is None or not math.isfinite(value):
        return None
    short = float(f"{value:.2e}")
    return int(short) if short.is_integer() and abs(short) < 1000 else short


def _once(values: Sequence[Any]) -> Any:
    """One value in the place of many that are the same."""
    return values[0] if len(set(values)) == 1 else values
