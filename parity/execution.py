"""How a Flax network is run for a comparison: eagerly, but for its layers, which are compiled.

Each layer is compiled for itself, once for all of its kind, in this network and the next; what lies
between them runs operation by operation, so that gradients can be looked at as they pass.
"""

import contextlib
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.intercept import Path, intercepted

Handler = Callable[..., Any]


class Split(NamedTuple):
    """A Flax module in parts: its structure, its parameters, and all other state."""

    graphdef: nnx.GraphDef
    parameters: nnx.State
    rest: nnx.State

    @classmethod
    def of(cls, model: nnx.Module) -> "Split":
        """The parts of a module."""
        return cls(*nnx.split(model, nnx.Param, ...))

    def module(self, *, training: bool) -> nnx.Module:
        """A new module: in training mode with every dropout rate 0, or in evaluation mode."""
        model = nnx.merge(*self, copy=True)
        if not training:
            model.eval()
            return model
        model.train()
        for _, module in nnx.iter_modules(model):
            if isinstance(module, nnx.Dropout):
                module.rate = 0.0
        return model


def run_layers(path: Path, module: nnx.Module, call: Any, *args: Any, **kwargs: Any) -> Any:
    """For ``flaxnets.intercept``: a layer with parameters runs compiled, the rest as it is."""
    if not is_layer(module):
        return call(*args, **kwargs)
    graphdef, state = nnx.split(module)
    output, statistics = run_layer(call.func, graphdef, state, args, kwargs)
    nnx.update(module, statistics)
    return output


@partial(jax.jit, static_argnums=(0, 1))
def run_layer(function: Any, graphdef: Any, state: Any, args: Any, kwargs: Any) -> Any:
    """``function(module, *args, **kwargs)`` and the module's batch statistics after it."""
    module = nnx.merge(graphdef, state, copy=True)
    return function(module, *args, **kwargs), nnx.state(module, nnx.BatchStat)


def gradients(
    model: Split,
    images: jax.Array,
    labels: jax.Array,
    *,
    training: bool,
    handler: Handler | None = run_layers,
) -> tuple[jax.Array, jax.Array, nnx.State, nnx.State, jax.Array]:
    """Mean cross-entropy and its gradients.

    Args:
        model: takes (N, H, W, C) to (N, classes).
        images: (N, H, W, C).
        labels: (N,).
        training: training mode, with every dropout rate 0; else evaluation mode.
        handler: stands between the submodules; None leaves the network to itself.

    Returns:
        The loss, the logits, all state but the parameters after the run, the gradients of the
        parameters and of the images.
    """

    def loss(parameters: Any, images: jax.Array) -> Any:
        run = Split(model.graphdef, parameters, model.rest).module(training=training)
        with contextlib.nullcontext() if handler is None else intercepted(run, handler):
            logits = run(images)
        return _cross_entropy(logits, labels), (logits, Split.of(run).rest)

    (value, (logits, rest)), (of_parameters, of_images) = jax.value_and_grad(
        loss, argnums=(0, 1), has_aux=True
    )(model.parameters, images)
    return value, logits, rest, of_parameters, of_images


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked.mean()


def tap(
    x: jax.Array, value: Callable[[jax.Array], Any], gradient: Callable[[jax.Array], Any]
) -> jax.Array:
    """``x``, which must depend on what ``gradients`` differentiates by.

    Args:
        x: any array.
        value: is handed the array itself, where the caller has a tracer.
        gradient: is handed the gradient that arrives at it, on the way back.
    """

    @jax.custom_vjp
    def identity(x: jax.Array) -> jax.Array:
        return x

    def forward(x: jax.Array) -> tuple[jax.Array, None]:
        value(x)
        return x, None

    def backward(_: None, arriving: jax.Array) -> tuple[jax.Array]:
        gradient(arriving)
        return (arriving,)

    identity.defvjp(forward, backward)
    return identity(x)


def is_layer(module: nnx.Module) -> bool:
    """Whether a module has parameters and no submodules."""
    alone = sum(1 for _ in nnx.iter_modules(module)) == 1
    return alone and bool(nnx.to_flat_state(nnx.state(module, nnx.Param)).paths)


@contextlib.contextmanager
def comparable(model: nnx.Module, dtype: str) -> Iterator[None]:
    """The settings that a Flax network is compared in.

    Compiling takes most of the time. Where most layers are of a kind of their own (a DenseNet), and
    compiling takes more than running, LLVM's optimization is left out in float64. Not in float32:
    LLVM changes the order of summation, and the error that is measured should be that of the code
    that people run.
    """
    with full_precision(dtype), quick_compilation(dtype == "float64" and _layers_differ(model)):
        yield


@contextlib.contextmanager
def full_precision(dtype: str) -> Iterator[None]:
    """JAX with 64-bit types for float64 only, and with products in full precision."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield


@contextlib.contextmanager
def quick_compilation(enabled: bool = True) -> Iterator[None]:
    """Leave LLVM's optimization of CPU code out, which halves the time of compiling.

    XLA's own passes, which decide what is computed, all run.
    """
    flag = "jax_disable_most_optimizations"
    before = jax.config.values[flag]
    jax.config.update(flag, before or (enabled and jax.default_backend() == "cpu"))
    try:
        yield
    finally:
        jax.config.update(flag, before)


def _layers_differ(model: nnx.Module) -> bool:
    layers = [nnx.graphdef(module) for _, module in nnx.iter_modules(model) if is_layer(module)]
    return len(set(layers)) > len(layers) / 2
