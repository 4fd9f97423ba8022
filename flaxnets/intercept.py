"""Stand between the submodules of a Flax model, without touching the model's code."""

import contextlib
import contextvars
from collections.abc import Callable, Iterator
from functools import partial, wraps
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

Path = tuple[Any, ...]
Handler = Callable[..., Any]

_WATCHED: contextvars.ContextVar[bool] = contextvars.ContextVar("watched", default=False)


def is_watched() -> bool:
    """Whether calls of submodules are being intercepted, and should each be made."""
    return _WATCHED.get()


@contextlib.contextmanager
def intercepted(model: nnx.Module, handler: Handler) -> Iterator[None]:
    """Send every call of a submodule of ``model`` through ``handler`` while the context lasts.

    ``nnx.capture`` records outputs too, but in the tree's order, with every other public method's,
    and without a way to change them.

    Args:
        model: its own call is not sent through; its classes' ``__call__`` are replaced for the time
            being.
        handler: called as ``handler(path, module, call, *args, **kwargs)`` and returns the output;
            ``call(*args, **kwargs)`` is what the module computes.
    """
    paths = {id(module): path for path, module in nnx.iter_modules(model) if path}
    modules = [module for path, module in nnx.iter_modules(model) if path]
    active: set[int] = set()

    def replacement(original: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(original)
        def call(self: nnx.Module, *args: Any, **kwargs: Any) -> Any:
            # A class and its base may both be replaced: only the outermost call is the module's.
            if id(self) not in paths or id(self) in active:
                return original(self, *args, **kwargs)
            active.add(id(self))
            try:
                return handler(paths[id(self)], self, partial(original, self), *args, **kwargs)
            finally:
                active.discard(id(self))

        return call

    originals = {
        owner: owner.__dict__["__call__"]
        for module in modules
        for owner in type(module).__mro__
        if "__call__" in owner.__dict__ and issubclass(owner, nnx.Module)
    }
    token = _WATCHED.set(True)
    try:
        for owner, original in originals.items():
            setattr(owner, "__call__", replacement(original))  # noqa: B010
        yield
    finally:
        for owner, original in originals.items():
            setattr(owner, "__call__", original)  # noqa: B010
        _WATCHED.reset(token)


def trace_calls(model: nnx.Module, input_shape: tuple[int, ...], handler: Handler) -> None:
    """Send the call of ``model`` and of every submodule through ``handler``, computing nothing.

    Args:
        model: traced as a copy of itself in evaluation mode, and left as it is; it may be abstract.
        input_shape: of the one float32 array that it is called with.
        handler: as ``intercepted``'s; the path of ``model`` itself is ().
    """
    graph, state = nnx.split(model)

    def trace(state: nnx.State, x: jax.Array) -> None:
        copy: Any = nnx.merge(graph, state, copy=True)
        copy.eval()
        with intercepted(copy, handler):
            handler((), copy, copy, x)

    jax.eval_shape(trace, state, jax.ShapeDtypeStruct(input_shape, jnp.float32))
