"""Checks of configuration values, each ending in one ``ValueError`` that says what is valid."""

import difflib
from collections.abc import Collection, Iterable
from typing import Any


def nearest(value: object, choices: Iterable[str]) -> str:
    """Return the (at most three) choices that read most like ``value``, or "none"."""
    return ", ".join(difflib.get_close_matches(str(value), list(choices), n=3)) or "none"


def check_choice(field: str, value: object, choices: Collection[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``."""
    if value not in choices:
        raise ValueError(
            f"{field} must be one of {', '.join(choices)}; got {value!r} "
            f"(nearest: {nearest(value, choices)})"
        )


def check_positive(**values: Any) -> None:
    """Raise ``ValueError`` unless every named value is an integer >= 1, or a sequence of them."""
    for field, value in values.items():
        numbers = value if isinstance(value, tuple | list) else (value,)
        if not numbers or any(type(number) is not int or number < 1 for number in numbers):
            raise ValueError(f"{field} must hold whole numbers of at least 1; got {value!r}")


def check_classes(num_classes: int) -> None:
    """Raise ``ValueError`` unless ``num_classes`` is an integer >= 0."""
    if type(num_classes) is not int or num_classes < 0:
        raise ValueError(
            "num_classes must be a whole number of at least 1, or 0 for a network without "
            f"classifier; got {num_classes!r}"
        )


def check_dropout(rate: float) -> None:
    """Raise ``ValueError`` unless ``rate``, the fraction that is zeroed, is in [0, 1)."""
    if not isinstance(rate, int | float) or not 0 <= rate < 1:
        raise ValueError(
            "dropout is the fraction of values set to zero, at least 0 (none) and below 1; "
            f"got {rate!r}"
        )


def blocks_from_depth(network: str, depth: int, period: int, offset: int) -> int:
    """Solve ``depth = period * n + offset`` for the number of blocks n, at least 1.

    Raises:
        ValueError: where no such n exists; the message names the rule and the nearest depths.
    """
    check_positive(depth=depth)
    n, remainder = divmod(depth - offset, period)
    if remainder or n < 1:
        below = period * max(n, 1) + offset
        raise ValueError(
            f"the depth of a {network} is {period}n+{offset} with n >= 1; got {depth} "
            f"(nearest valid: {below} and {below + period})"
        )
    return n
