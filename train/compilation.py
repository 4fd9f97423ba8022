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
    with _without_addresses_in_keys():
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


@contextlib.contextmanager
def _without_addresses_in_keys() -> Iterator[None]:
    """JAX's cache on disk finds again what has functions in C++ in it (``flaxnets.native``).

    By default its key has the address, in this process, of the Python function that splits such a
    call over devices. What else tells these functions apart is in their arguments.
    """
    name = "jax_remove_custom_partitioning_ptr_from_cache_key"
    before = getattr(jax.config, name, None)
    if before is None:  # a JAX that knows no such thing
        yield
        return
    jax.config.update(name, True)
    try:
        yield
    finally:
        jax.config.update(name, before)
