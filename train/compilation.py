"""Compiling ahead of the first call, as fast as it goes."""

import contextlib
import gc
from collections.abc import Iterator
from typing import Any

import jax


def compile_ahead(function: jax.stages.Wrapped, *arguments: Any) -> jax.stages.Compiled:
    """Compile a jitted function for arguments of these shapes and dtypes.

    Tracing and lowering a network make objects by the million, nearly all of which stay: Python's
    garbage collector goes through them again and again to find nothing, for up to a third of that
    time. It is off meanwhile.

    Args:
        function: what ``jax.jit`` returned.
        arguments: the arrays it will be called with, or their ``jax.ShapeDtypeStruct``.
    """
    with _without_garbage_collection():
        lowered = function.lower(*arguments)
    return lowered.compile()


@contextlib.contextmanager
def _without_garbage_collection() -> Iterator[None]:
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()
