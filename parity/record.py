"""One run of a network, on either side, as arrays under the same names.

Feature maps are (N, H, W, C) on both sides, parameters in PyTorch's layout, names are PyTorch's.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
import torch.nn.functional as F
from flax import nnx
from torch import nn

from flaxnets.intercept import Path
from flaxnets.layers import FeatureMaps, Sequential
from parity.budget import DType
from parity.execution import Split, comparable, gradients, is_layer, run_layers, tap
from parity.execution import full_precision as full_precision
from parity.kinks import Relu, ReluCalls, Side
from parity.libraries import memory_format
from parity.naming import Rename, torch_arrays, torch_key, unchanged

# How a layer, or JAX, refuses an input that is not what a layer is for.
REFUSALS = (TypeError, ValueError)

# Modules of PyTorch that a Flax network writes as functions, unless they have parameters.
FUNCTIONAL = (nn.Identity, nn.Flatten)
FUNCTIONAL_FAMILIES = (nn.modules.activation.__name__, nn.modules.pooling.__name__)


@dataclasses.dataclass(frozen=True)
class Batches:
    """What the networks read: K batches of N pictures.

    Attributes:
        images: (K, N, H, W, C), float64.
        labels: (K, N), whole numbers below the number of classes.
    """

    images: np.ndarray
    labels: np.ndarray


class RunError(Exception):
    """A Flax network can't be run on what PyTorch's is run on.

    Attributes:
        layer: the innermost module that failed; "" for the network itself.
        calls: how leaf layers were called up to there.
    """

    def __init__(self, layer: str, reason: str, calls: Mapping[str, "LayerCall"]) -> None:
        super().__init__(reason)
        self.layer, self.calls = layer, calls


@dataclasses.dataclass(frozen=True)
class LayerCall:
    """How a Flax network called one of its layers.

    Attributes:
        path: of the layer in the network.
        function: the layer class's ``__call__``.
        reads_maps: whether its input was ``flaxnets.layers.FeatureMaps``.
        kwargs: what else it was given.
    """

    path: Path
    function: Callable[..., Any]
    reads_maps: bool
    kwargs: Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Trace:
    """What a network did with K batches; all but ``statistics`` are of the first.

    A leaf layer is one with parameters and without submodules.

    Attributes:
        layers: every submodule's output by name, in execution order.
        logits: (N, classes).
        loss: (), mean cross-entropy.
        layer_gradients: of the loss with respect to every submodule's output, where one arrived.
        parameter_gradients: by state-dict key.
        input_gradient: (N, H, W, C).
        statistics: batch norm's running mean, variance and batch count after all K batches, by key.
        containers: layers that only run others in turn; the other side may do without them.
        relus: for PyTorch, which layers tell the signs of which ReLU call's input.
        turned: for PyTorch, how many ReLU inputs were moved past the kink.
        inputs: for PyTorch, what every leaf layer read.
        calls: for Flax, how every leaf layer was called.
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
    layer_gradients: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    inputs: dict[str, np.ndarray] = dataclasses.field(default_factory=dict)
    calls: dict[str, LayerCall] = dataclasses.field(default_factory=dict)

    @property
    def leaves(self) -> set[str]:
        """The names of the leaf layers."""
        return {*self.inputs, *self.calls}

    def only_leaves(self) -> "Trace":
        """The same run without the layers that gather others."""
        leaves = self.leaves
        return dataclasses.replace(
            self,
            layers={name: value for name, value in self.layers.items() if name in leaves},
            layer_gradients={
                name: value for name, value in self.layer_gradients.items() if name in leaves
            },
            relus={call: relu for call, relu in self.relus.items() if relu.layer in leaves},
        )


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
    layer_gradients: dict[str, np.ndarray] = {}
    inputs: dict[str, np.ndarray] = {}
    relus = ReluCalls(sides)

    def keep(name: str, child: nn.Module, args: Any, output: torch.Tensor) -> None:
        name = call_name(layers, name)
        if not isinstance(output, torch.Tensor):
            raise ValueError(
                f"layer {name} gives a {type(output).__name__}; only layers that give one tensor "
                "can be compared"
            )
        relus.layer_ended(name, output)
        layers[name] = channels_last(output)
        if _is_leaf(child) and len(args) == 1 and isinstance(args[0], torch.Tensor):
            inputs[name] = channels_last(args[0])
        # Even if the output is changed in place later: the gradient is that of its value now.
        output.register_hook(partial(keep_gradient, name))

    def keep_gradient(name: str, gradient: torch.Tensor) -> None:
        layer_gradients[name] = channels_last(gradient)

    with set_mode(module, training=training):
        hooks = [
            child.register_forward_hook(partial(keep, name))
            for name, child in module.named_modules()
            if name and not _is_function(child)
        ]
        pictures = channels_first(batches.images[0], parameter).requires_grad_()
        try:
            with relus:
                logits = module(pictures)
        finally:
            for hook in hooks:
                hook.remove()
        if logits.ndim != 2 or batches.labels.min() < 0 or batches.labels.max() >= logits.shape[1]:
            raise ValueError(
                f"the network gives {tuple(logits.shape)}; it has to be (N, classes), and labels "
                f"below the number of classes, not {batches.labels.max()}"
            )
        loss = F.cross_entropy(logits, torch.tensor(batches.labels[0], device=parameter.device))
        parameters = dict(module.named_parameters())
        *of_parameters, input_gradient = torch.autograd.grad(
            loss, [*parameters.values(), pictures], materialize_grads=True
        )
        with torch.no_grad():
            for index in range(1, len(batches.images)):
                module(channels_first(batches.images[index], parameter))
        return Trace(
            layers=layers,
            logits=channels_last(logits),
            loss=loss.detach().numpy(force=True),
            parameter_gradients={
                key: gradient.numpy(force=True)
                for key, gradient in zip(parameters, of_parameters, strict=True)
            },
            input_gradient=channels_last(input_gradient),
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
            layer_gradients=layer_gradients,
            inputs=inputs,
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


def _is_function(module: nn.Module) -> bool:
    """Whether a Flax network has no module in the place of this one."""
    family = type(module).__module__ in FUNCTIONAL_FAMILIES
    return isinstance(module, FUNCTIONAL) or (family and not any(True for _ in module.parameters()))


def _is_leaf(module: nn.Module) -> bool:
    """Whether a module has parameters and no submodules."""
    return not any(module.children()) and any(True for _ in module.parameters())


def channels_first(array: np.ndarray, like: torch.Tensor) -> torch.Tensor:
    """An array, (N, H, W, C) as (N, C, H, W), with the dtype and on the device of ``like``."""
    if array.ndim != 4:
        return torch.tensor(array, dtype=like.dtype, device=like.device)
    moved = torch.tensor(np.moveaxis(array, -1, 1), dtype=like.dtype, device=like.device)
    return moved.contiguous(memory_format=memory_format())


def channels_last(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor, (N, C, H, W) as (N, H, W, C); of bfloat16, which NumPy lacks, float32."""
    array = (tensor.float() if tensor.dtype == torch.bfloat16 else tensor).numpy(force=True)
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

    Args:
        model: takes (N, H, W, C) to (N, classes).
        batches: the inputs.
        dtype: of the inputs; the model's own should be the same.
        training: training mode, with every dropout rate 0; else evaluation mode.
        rename: a module's dotted Flax name to PyTorch's name.

    Raises:
        RunError: a module refuses what it is given.
    """
    layers: dict[str, np.ndarray] = {}
    layer_gradients: dict[str, np.ndarray] = {}
    calls: dict[str, LayerCall] = {}

    def keep(path: Path, module: nnx.Module, call: Any, *args: Any, **kwargs: Any) -> Any:
        name = torch_key(path, rename)
        if is_layer(module) and len(args) == 1:
            maps = isinstance(args[0], FeatureMaps)
            calls[call_name(layers, name)] = LayerCall(path, call.func, maps, kwargs)
        try:
            output = run_layers(path, module, call, *args, **kwargs)
        except REFUSALS as error:
            raise run_error(name, error) from error
        name = call_name(layers, name)
        value, gradient = (partial(store, kept, name) for kept in (layers, layer_gradients))
        if isinstance(output, FeatureMaps):
            # They are read through their statistics too: no one array's gradient is the whole.
            tap(output.values, value, lambda _: None)
            return output
        return tap(output, value, gradient)

    def store(kept: dict[str, np.ndarray], name: str, array: jax.Array) -> None:
        kept[name] = np.asarray(array)

    def run_error(name: str, error: Exception) -> RunError:
        reason = str(error).strip().partition("\n")[0]
        return RunError(name, f"{type(error).__name__}: {reason}", calls)

    with comparable(model, dtype):
        images, labels = jnp.asarray(batches.images, dtype), jnp.asarray(batches.labels)
        split = Split.of(model)
        try:
            loss, logits, rest, of_parameters, of_images = gradients(
                split, images[0], labels[0], training=training, handler=keep
            )
        except REFUSALS as error:
            raise run_error("", error) from error
        for later in range(1, len(images)):
            split = split._replace(rest=rest)
            rest = gradients(split, images[later], labels[later], training=training)[2]
        statistics = nnx.filter_state(rest, nnx.BatchStat)
        return Trace(
            layers=layers,
            logits=np.asarray(logits),
            loss=np.asarray(loss),
            parameter_gradients=torch_arrays(flat_state(of_parameters), rename),
            input_gradient=np.asarray(of_images),
            statistics=torch_arrays(flat_state(statistics), rename),
            containers=frozenset(
                torch_key(path, rename)
                for path, module in nnx.iter_modules(model)
                if path and isinstance(module, nnx.Sequential | Sequential)
            ),
            layer_gradients=layer_gradients,
            calls=calls,
        )


def flat_state(state: nnx.State) -> list[tuple[Path, Any]]:
    """A state's arrays by path."""
    flat = nnx.to_flat_state(state)
    return [(path, leaf[...]) for path, leaf in zip(flat.paths, flat.leaves, strict=True)]
