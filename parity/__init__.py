"""Proof that the Flax networks compute what their PyTorch twins compute.

``python -m parity --arch NAME`` compares one network layer by layer, ``--all`` every one;
``compare`` does the same for a pair of modules of one's own.
"""

import importlib
from typing import Any

_HOMES = {
    "Comparison": "parity.comparison",
    "NetworkReport": "parity.report",
    "Pair": "parity.checks",
    "assert_equal": "parity.own",
    "compare": "parity.own",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    # Imported on first use: `python -m parity` can then say what to install where torch is missing.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'parity' has no attribute {name!r}")
