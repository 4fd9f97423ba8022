"""Checks that every config shares; each raises ``ValueError`` naming the rule and near values."""

import difflib
from collections.abc import Iterable


def require(condition: bool, message: str) -> None:
    """Raise ``ValueError(message)`` unless ``condition`` holds."""
    if not condition:
        raise ValueError(message)


def require_choice(field: str, value: object, choices: Iterable[str]) -> None:
    """Raise ``ValueError`` unless ``value`` is one of ``choices``; suggests the nearest ones."""
    choices = tuple(choices)
    if value not in choices:
        near = nearest(str(value), choices)
        hint = f" (did you mean {near}?)" if near else ""
        raise ValueError(f"{field}={value!r} is not one of {', '.join(choices)}{hint}")


def require_positive(**fields: int | tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless every field is a positive whole number, or a tuple of them."""
    for field, value in fields.items():
        numbers = value if isinstance(value, tuple) else (value,)
        whole = all(isinstance(n, int) and not isinstance(n, bool) and n > 0 for n in numbers)
        require(
            bool(numbers) and whole,
            f"{field}={value!r} must be positive whole numbers (1 or more)"
            + (", in a tuple" if isinstance(value, list) else ""),
        )


def require_classes(num_classes: int) -> None:
    """Raise ``ValueError`` unless ``num_classes`` is a whole number, 0 or more."""
    require(
        type(num_classes) is int and num_classes >= 0,
        f"num_classes={num_classes!r} must be a positive whole number, "
        "or 0 for a network without classifier",
    )


def require_flag(**fields: bool) -> None:
    """Raise ``ValueError`` unless every field is True or False; "false" would count as true."""
    for field, value in fields.items():
        require(isinstance(value, bool), f"{field}={value!r} must be True or False")


def require_sizes(**fields: tuple[int, ...]) -> None:
    """Raise ``ValueError`` unless every field is a tuple of positive whole numbers."""
    for field, value in fields.items():
        require(
            isinstance(value, tuple),
            f"{field}={value!r} must be positive whole numbers (1 or more), in a tuple",
        )
    require_positive(**fields)


def require_rate(field: str, rate: float) -> None:
    """Raise ``ValueError`` unless ``rate`` is a dropout probability in [0, 1)."""
    require(
        isinstance(rate, int | float) and 0.0 <= rate < 1.0,
        f"{field}={rate!r} must be a probability in [0, 1); 0 switches dropout off",
    )


def blocks_per_stage(network: str, depth: int, per_block: int, offset: int) -> int:
    """n of the rule ``depth = per_block * n + offset``, n >= 1.

    Raises:
        ValueError: the depth does not fit; the message gives the rule and the nearest depths.
    """
    n, rest = divmod(depth - offset, per_block)
    if n < 1 or rest:
        lower = max(n, 1)
        valid = [per_block * m + offset for m in (lower, lower + 1)]
        raise ValueError(
            f"{network} depth must be {per_block}n+{offset} with n >= 1, got {depth}; "
            f"the nearest valid depths are {valid[0]} and {valid[1]}"
        )
    return n


def nearest(name: str, names: Iterable[str]) -> str:
    """Up to three of ``names`` that begin with or look like ``name``, joined for a message; '' if
    none does.
    """
    names = list(names)
    longer = [other for other in names if name and other.startswith(name)]
    alike = difflib.get_close_matches(name, names, n=3, cutoff=0.5)
    return ", ".join(list(dict.fromkeys([*longer[:2], *alike]))[:3])
