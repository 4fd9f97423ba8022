"""Mistakes put into running code, for the time of a context.

A change is a context manager that can be entered once; ``edited`` and ``replaced`` give one. Code
that was compiled, or looked up, before a change would go on to be used as if there were none;
``forget_compiled`` drops it, and has to be called on the way in and on the way out.
"""

import ast
import contextlib
import gc
import inspect
import sys
import textwrap
from collections.abc import Callable, Iterator
from types import FunctionType
from typing import Any

import jax

PACKAGES = ("flaxnets", "train", "parity")


class NoSuchCode(LookupError):
    """The text that a change is about is not, or not once, in the function."""


@contextlib.contextmanager
def edited(function: Callable[..., Any], *replacements: tuple[str, str]) -> Iterator[None]:
    """Run a function with some of its text replaced.

    The function object stays the same, so whoever holds it runs the edited code.

    Args:
        function: of a module or class, not one inside another function; what decorators have made
            of it is looked through.
        replacements: what is written there, exactly once, and what is to stand in its place.

    Raises:
        NoSuchCode: the text is not there, or more than once.
    """
    target = inspect.unwrap(function)
    assert isinstance(target, FunctionType), f"{function} is no Python function"
    source = textwrap.dedent(inspect.getsource(target))
    for before, after in replacements:
        if source.count(before) != 1:
            found = source.count(before)
            raise NoSuchCode(f"{target.__qualname__} has {before!r} {found} times, not once")
        source = source.replace(before, after)
    edited = _define(source, target)
    kept = target.__code__, target.__defaults__, target.__kwdefaults__
    _give(target, edited.__code__, edited.__defaults__, edited.__kwdefaults__)
    try:
        yield
    finally:
        _give(target, *kept)


def _define(source: str, like: FunctionType) -> FunctionType:
    tree = ast.parse(source)
    (definition,) = tree.body
    assert isinstance(definition, ast.FunctionDef)
    definition.decorator_list = []
    names: dict[str, Any] = {}
    code = compile(tree, f"<edited {like.__module__}.{like.__qualname__}>", "exec")
    exec(code, like.__globals__, names)
    return names[definition.name]


def _give(function: FunctionType, code: Any, defaults: Any, keywords: Any) -> None:
    function.__code__, function.__defaults__, function.__kwdefaults__ = code, defaults, keywords


@contextlib.contextmanager
def replaced(original: Any, replacement: Any) -> Iterator[None]:
    """Put an object in the place of another, in every module of ``PACKAGES`` that holds it."""
    places = [
        (module, name)
        for module in _modules()
        for name, value in vars(module).items()
        if value is original
    ]
    assert places, f"no module holds {original}"
    for module, name in places:
        setattr(module, name, replacement)
    try:
        yield
    finally:
        for module, name in places:
            setattr(module, name, original)


@contextlib.contextmanager
def together(*changes: contextlib.AbstractContextManager[None]) -> Iterator[None]:
    """Several changes as one."""
    with contextlib.ExitStack() as stack:
        for change in changes:
            stack.enter_context(change)
        yield


def forget_compiled() -> None:
    """Drop everything that was traced, compiled or remembered.

    What lies compiled on disk is found by the program's text, and can stay.
    """
    jax.clear_caches()
    for module in _modules():
        for value in list(vars(module).values()):
            if hasattr(value, "cache_clear"):
                value.cache_clear()
    gc.collect()


def _modules() -> list[Any]:
    return [module for name, module in sys.modules.items() if name.partition(".")[0] in PACKAGES]
