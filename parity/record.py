"""One run of a network, on either side, as arrays under the same names.

Feature maps are (N, H, W, C) on both sides, parameters in PyTorch's layout, names are PyTorch's.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from flaxnets.intercept import Path, intercepted
from flaxnets.layers import FeatureMaps, Sequential
from parity.budget import DType
from parity.kinks import Relu, ReluCalls, Side
from parity.naming import Rename, torch_arrays, torch_key, unchanged

# Modules that a Flax network writes as functions.
FUNCTIONAL = (
    nn.ReLU,
    nn.MaxPool2d,
    nn.AvgPool2d,
    nn.AdaptiveAvgPool2d,
    nn.Identity,
    nn.Flatten,
)


@dataclasses.dataclass(frozen=True)
class Batches:
    """What the networks read: K batches of N pictures.

    Attributes:
        images: (K, N, H, W, C), float64.
        labels: (K, N), whole numbers below the number of classes.
    """

    images: np.ndarray
    labels: np.ndarray


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a network did with K batches; all but ``statistics`` are of the first.

    Attributes:
        layers: every submodule's output by name, in execution order.
        logits: (N, classes).
        loss: (), mean cross-entropy.
        parameter_gradients: by state-dict key.
        input_gradient: (N, H, W, C).
        statistics: batch norm's running mean, variance and batch count after all K batches, by key.
        containers: layers that only run others in turn; the other side may do without them.
        relus: for PyTorch, which layers tell the signs of which ReLU call's input.
        turned: for PyTorch, how many ReLU inputs were moved past the kink.
    """

    layers: dict[str, np.ndarray]
    logits: np.ndarray
    loss: np.ndarray
    parameter_gradients: dict[str, np.ndarray]
    input_gradient: np.ndarray
    statistics: dict[str, np.ndarray]
    containers: frozenset[str] = frozenset()
    relus: dict[int, Relu] = dataclasses.field(default_factory=dict)
    turned: int = 0


def record_torch(
    module: nn.Module,
    batches: Batches,
    *,
    training: bool,
    sides: Mapping[int, Side] | None = None,
) -> Trace:
    """Run a PyTorch module on its parameters' device and dtype; it is left as it was found.

    Args:
        module: takes (N, C, H, W) to (N, classes).
        batches: the inputs.
        training: training mode, with every dropout rate 0; else evaluation mode.
        sides: of the kinks on which ReLU inputs are to be (``parity.kinks``).
    """
    parameter = next(module.parameters())
    layers: dict[str, np.ndarray] = {}
    relus = ReluCalls(sides)

    def keep(name: str, _: nn.Module, __: Any, output: torch.Tensor) -> None:
        name = call_name(layers, name)
        relus.layer_ended(name, output)
        layers[name] = _channels_last(output)

    def images(index: int) -> torch.Tensor:
        pictures = np.moveaxis(batches.images[index], -1, 1)
        return torch.tensor(pictures, dtype=parameter.dtype, device=parameter.device)

    with set_mode(module, training=training):
        hooks = [
            child.register_forward_hook(partial(keep, name))
            for name, child in module.named_modules()
            if name and not isinstance(child, FUNCTIONAL)
        ]
        pictures = images(0).requires_grad_()
        try:
            with relus:
                logits = module(pictures)
        finally:
            for hook in hooks:
                hook.remove()
        loss = F.cross_entropy(logits, torch.tensor(batches.labels[0], device=parameter.device))
        parameters = dict(module.named_parameters())
        *gradients, input_gradient = torch.autograd.grad(
            loss, [*parameters.values(), pictures], materialize_grads=True
        )
        with torch.no_grad():
            for index in range(1, len(batches.images)):
                module(images(index))
        return Trace(
            layers=layers,
            logits=_channels_last(logits),
            loss=loss.detach().numpy(force=True),
            parameter_gradients={
                key: gradient.numpy(force=True)
                for key, gradient in zip(parameters, gradients, strict=True)
            },
            input_gradient=_channels_last(input_gradient),
            statistics={
                key: value.numpy(force=True).copy() for key, value in module.named_buffers()
            },
            containers=frozenset(
                name
                for name, child in module.named_modules()
                if isinstance(child, nn.Sequential | nn.ModuleList)
            ),
            relus=relus.relus,
            turned=relus.turned,
        )


def call_name(layers: Mapping[str, Any], name: str) -> str:
    """``name``, or "name (call 2)" and so on for a module that has been called before."""
    calls = 1
    unique = name
    while unique in layers:
        calls += 1
        unique = f"{name} (call {calls})"
    return unique


@contextlib.contextmanager
def set_mode(module: nn.Module, *, training: bool, keep_buffers: bool = False) -> Iterator[None]:
    """Training mode with every dropout rate 0, or evaluation mode, for the time of the context.

    Afterwards modes and dropout rates are as before, and buffers too unless ``keep_buffers``.
    """
    modes = {child: child.training for child in module.modules()}
    buffers = {} if keep_buffers else {buffer: buffer.clone() for buffer in module.buffers()}
    rates = {
        child: child.p
        for child in module.modules()
        if isinstance(child, nn.modules.dropout._DropoutNd)
    }
    module.train(training)
    for drop in rates if training else ():
        drop.p = 0.0
    try:
        yield
    finally:
        for drop, rate in rates.items():
            drop.p = rate
        for child, mode in modes.items():
            child.training = mode
        with torch.no_grad():
            for buffer, value in buffers.items():
                buffer.copy_(value)


def _channels_last(tensor: torch.Tensor) -> np.ndarray:
    array = tensor.numpy(force=True)
    return np.moveaxis(array, 1, -1).copy() if array.ndim == 4 else array.copy()


def record_flax(
    model: nnx.Module,
    batches: Batches,
    *,
    dtype: DType,
    training: bool,
    rename: Rename = unchanged,
) -> Trace:
    """Run a Flax module; it is not changed. Products are in full precision whatever the device.

    Compiling takes most of the time. Each layer is compiled for itself, once for all of its kind,
    in this network and the next. Where most layers are of a kind of their own (a DenseNet), and
    compiling takes more than running, LLVM's optimization is left out in float64.

    Args:
        model: takes (N, H, W, C) to (N, classes).
        batches: the inputs.
        dtype: of the inputs; the model's own should be the same.
        training: training mode, with every dropout rate 0; else evaluation mode.
        rename: a module's dotted Flax name to PyTorch's name.
    """
    graphdef, params, rest = _split(model)

    def loss_and_record(params: Any, images: Any, rest: Any, labels: Any) -> Any:
        run = _in_mode(nnx.merge(graphdef, params, rest, copy=True), training)
        layers: dict[str, jax.Array] = {}

        def keep(path: Path, module: nnx.Module, call: Any, *args: Any, **kwargs: Any) -> Any:
            if _is_layer(module):
                output = _run_compiled(module, call.func, args, kwargs)
            else:
                output = call(*args, **kwargs)
            layers[call_name(layers, torch_key(path, rename))] = _feature_maps(output)
            return output

        with intercepted(run, keep):
            logits = run(images)
        loss = _cross_entropy(logits, labels)
        return loss, (layers, logits, _split(run)[2])

    step = jax.value_and_grad(loss_and_record, argnums=(0, 1), has_aux=True)
    with full_precision(dtype), _quick_compilation(dtype == "float64" and _layers_differ(model)):
        images, labels = jnp.asarray(batches.images, dtype), jnp.asarray(batches.labels)
        (loss, (layers, logits, rest)), (gradients, input_gradient) = step(
            params, images[0], rest, labels[0]
        )
        for later in range(1, len(images)):
            rest = step(params, images[later], rest, labels[later])[0][1][2]
        statistics = nnx.filter_state(rest, nnx.BatchStat)
        return Trace(
            layers={name: np.asarray(output) for name, output in layers.items()},
            logits=np.asarray(logits),
            loss=np.asarray(loss),
            parameter_gradients=torch_arrays(_flat(gradients), rename),
            input_gradient=np.asarray(input_gradient),
            statistics=torch_arrays(_flat(statistics), rename),
            containers=frozenset(
                torch_key(path, rename)
                for path, module in nnx.iter_modules(model)
                if path and isinstance(module, nnx.Sequential | Sequential)
            ),
        )


@contextlib.contextmanager
def full_precision(dtype: DType) -> Iterator[None]:
    """JAX with 64-bit types for float64 only, and with products in full precision."""
    with jax.enable_x64(dtype == "float64"), jax.default_matmul_precision("highest"):
        yield


@contextlib.contextmanager
def _quick_compilation(enabled: bool) -> Iterator[None]:
    """Leave LLVM's optimization of CPU code out, which halves the time of compiling.

    XLA's own passes, which decide what is computed, all run. Not for float32: LLVM changes the
    order of summation, and the error that is measured should be that of the code that people run.
    """
    flag = "jax_disable_most_optimizations"
    before = jax.config.values[flag]
    jax.config.update(flag, before or (enabled and jax.default_backend() == "cpu"))
    try:
        yield
    finally:
        jax.config.update(flag, before)


def _split(model: nnx.Module) -> tuple[nnx.GraphDef, nnx.State, nnx.State]:
    graphdef, params, rest = nnx.split(model, nnx.Param, ...)  # type: ignore[misc]
    return graphdef, params, rest


def _in_mode(model: nnx.Module, training: bool) -> nnx.Module:
    if not training:
        model.eval()
        return model
    model.train()
    for _, module in nnx.iter_modules(model):
        if isinstance(module, nnx.Dropout):
            module.rate = 0.0
    return model


def _flat(state: nnx.State) -> list[tuple[Path, Any]]:
    flat = nnx.to_flat_state(state)
    return [(path, leaf[...]) for path, leaf in zip(flat.paths, flat.leaves, strict=True)]


def _feature_maps(output: Any) -> jax.Array:
    return output.values if isinstance(output, FeatureMaps) else output


def _cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    picked = jnp.take_along_axis(jax.nn.log_softmax(logits), labels[:, None], axis=1)
    return -picked.mean()


def _is_layer(module: nnx.Module) -> bool:
    """Whether a module has parameters and no submodules."""
    alone = sum(1 for _ in nnx.iter_modules(module)) == 1
    return alone and bool(nnx.to_flat_state(nnx.state(module, nnx.Param)).paths)


def _layers_differ(model: nnx.Module) -> bool:
    layers = [nnx.graphdef(module) for _, module in nnx.iter_modules(model) if _is_layer(module)]
    return len(set(layers)) > len(layers) / 2


def _run_compiled(
    module: nnx.Module, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """``function(module, *args, **kwargs)``, which is the module's own call, compiled."""
    graphdef, state = nnx.split(module)
    output, statistics = _run_layer(function, graphdef, state, args, kwargs)
    nnx.update(module, statistics)
    return output


@partial(jax.jit, static_argnums=(0, 1))
def _run_layer(function: Any, graphdef: Any, state: Any, args: Any, kwargs: Any) -> Any:
    module = nnx.merge(graphdef, state, copy=True)
    return function(module, *args, **kwargs), nnx.state(module, nnx.BatchStat)
