"""Neighbouring layers of a dense block over one buffer of maps, as a CPU computes them fast.

Written out, each layer concatenates, scales and rectifies all maps before it, and keeps the results
for its gradient: memory and time that grow with L^2. Here the layers of a run read and extend one
array; beside it the outputs of their convolutions are kept, and what lies between is computed again
for the gradient, for few pictures at a time, which stay in a core's cache. On a CPU a run is
moreover one loop, compiled once, over layers that are all as wide as its widest, with zero weights
for the maps that a layer does not read. ``nnx.capture`` sees nothing of what is inside.
"""

import copy
import dataclasses
import functools
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jax import export, lax

from flaxnets import native
from flaxnets.chunks import count_chunks, map_over_chunks, update_over_chunks
from flaxnets.convolution import conv2d, plain_conv2d
from flaxnets.intercept import is_watched
from flaxnets.layers import (
    BatchNorm,
    Conv,
    FeatureMaps,
    relu,
    scale_and_shift,
    standardize,
    standardize_gradient,
)

# Layers in a run: the more, the less there is to compile and the more is computed with zeros.
LENGTH = 8

# Bytes of the feature maps that are read at a time: about half of a core's second-level cache.
CHUNK_BYTES = 2**20


class Expansion(NamedTuple):
    """A layer's first norm, ReLU and 1x1 convolution.

    ``relu((maps - mean) * scale + bias) @ kernel``, where the mean is None if maps are normalised.

    Attributes:
        mean: (C,), float32 or wider.
        scale: (C,).
        bias: (C,).
        kernel: (C, 4k), in the compute dtype.
    """

    mean: jax.Array | None
    scale: jax.Array
    bias: jax.Array
    kernel: jax.Array


class Growth(NamedTuple):
    """The variables of the rest of a layer, which takes an expansion's output to new maps.

    Attributes:
        numbers: what can have a gradient.
        others: counters and keys.
    """

    numbers: nnx.State
    others: nnx.State


class Run(NamedTuple):
    """What does not change from step to step, or from layer to layer.

    Attributes:
        graph: of a layer's growth.
        length: layers.
        channels: C_in of the first.
        growth_rate: k.
        new_first: new maps lie in front of those that were read, not behind.
        training: whether new maps are normalised.
    """

    graph: nnx.GraphDef
    length: int
    channels: int
    growth_rate: int
    new_first: bool
    training: bool

    @property
    def width(self) -> int:
        """Channels after the last layer."""
        return self.channels + self.length * self.growth_rate

    def read(self, index: Any) -> slice:
        """The buffer's channels that a layer reads: all, where it is not known which it is."""
        if not isinstance(index, int):
            return slice(0, self.width)
        if self.new_first:
            return slice((self.length - index) * self.growth_rate, self.width)
        return slice(0, self.channels + index * self.growth_rate)

    def written(self, index: Any) -> Any:
        """The first of the buffer's channels that a layer writes."""
        if self.new_first:
            return (self.length - 1 - index) * self.growth_rate
        return self.channels + index * self.growth_rate


# Traced once for all layers of a block, and compiled as if it were not a function of its own.
@functools.partial(jax.jit, static_argnums=0, inline=True)
def _grow_maps(
    graph: nnx.GraphDef, expanded: jax.Array, numbers: nnx.State, others: nnx.State
) -> tuple[jax.Array, Growth]:
    """(N, H, W, 4k) to new maps (N, H, W, k), and the variables after that."""
    layer: Any = nnx.merge(graph, numbers, others, copy=True)
    return layer.grow(expanded), Growth(*nnx.state(layer, _is_number, ...))


@functools.partial(jax.jit, static_argnums=0, inline=True)
def _grow_maps_backward(
    graph: nnx.GraphDef,
    expanded: jax.Array,
    numbers: nnx.State,
    others: nnx.State,
    gradients: tuple[jax.Array, nnx.State],
) -> tuple[jax.Array, nnx.State]:
    """From gradients at the new maps and the numbers after to those at the input and numbers."""

    def grow(expanded: jax.Array, numbers: nnx.State) -> Any:
        values, after = _grow_maps(graph, expanded, numbers, others)
        return values, after.numbers

    _, transpose = jax.vjp(grow, expanded, numbers)
    return transpose(gradients)


def can_run(layers: Sequence[Any], maps: FeatureMaps) -> bool:
    """Whether :func:`run_layers` computes what the layers do.

    So it is where they are being compiled, are alike and as they were made, and nobody watches
    them.
    """
    training = maps.normalized is not None

    def as_made(layer: Any) -> bool:
        return bool(
            layer.bottleneck
            and type(layer.norm1) is BatchNorm
            and layer.norm1.use_running_average is not training
            and type(layer.conv1) is Conv
            and layer.conv1.kernel.shape[:2] == (1, 1)
            and layer.conv1.bias is None
            and type(layer.conv2) is Conv
        )

    def kind(layer: Any) -> Any:
        graph, state = nnx.split(_without_expansion(layer))
        return graph, [(leaf.shape, leaf.dtype) for leaf in jax.tree.leaves(state)]

    return (
        len(layers) > 1
        and isinstance(maps.values, jax.core.Tracer)
        and not export.is_symbolic_dim(maps.values.shape[0])
        and not is_watched()
        and all(as_made(layer) for layer in layers)
        and all(kind(layer) == kind(layers[0]) for layer in layers[1:])
    )


def run_layers(layers: Sequence[Any], maps: FeatureMaps, *, new_first: bool) -> FeatureMaps:
    """Apply ``flaxnets.densenet.DenseLayer``s in turn, each to the maps of all before it.

    Args:
        layers: such that :func:`can_run`.
        maps: of (N, H, W, C_in).
        new_first: whether a layer's new maps lie in front of those that it read.

    Returns:
        Maps of (N, H, W, C_in + length * k).
    """
    training = maps.normalized is not None
    x = maps.normalized if maps.normalized is not None else maps.values
    rests = [_without_expansion(layer) for layer in layers]
    graph, *_ = nnx.split(rests[0])
    growth_rate = layers[0].conv2.kernel.shape[-1]
    run = Run(graph, len(layers), x.shape[-1], growth_rate, new_first, training)
    expansions = [
        _expansion(layer, x.dtype, run.read(index), run.width) for index, layer in enumerate(layers)
    ]
    growths = [Growth(*nnx.state(rest, _is_number, ...)) for rest in rests]
    buffer, new, after = _run(run, x, _stacked(expansions), _stacked(growths))
    maps = dataclasses.replace(maps, normalized=None)
    results = _unstacked((new, after))
    for layer, rest, (each, variables) in zip(layers, rests, results, strict=True):
        nnx.update(rest, *variables)
        if training:
            layer.norm1.track(maps)
        maps = each + maps if new_first else maps + each
    return dataclasses.replace(maps, normalized=buffer) if training else FeatureMaps(buffer)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _run(run: Run, x: jax.Array, expansions: Expansion, growths: Growth) -> Any:
    """From the maps that the first layer reads, and stacked variables, to all maps.

    Returns:
        The buffer of all maps, normalised in training; ``FeatureMaps`` of the new ones, stacked,
        that lack the normalised; and the growths' variables after it.
    """
    return _run_forward(run, x, expansions, growths)[0]


def _run_forward(run: Run, x: jax.Array, expansions: Expansion, growths: Growth) -> Any:
    buffer, (expanded, new, after) = lax.platform_dependent(
        x,
        expansions,
        growths,
        cpu=functools.partial(_grow, run, _loop_or_write_out(run, x), _expand_on_cpu),
        default=functools.partial(_grow, run, _write_out, _expand),
    )
    return (buffer, new, after), (buffer, expanded, new, expansions, growths)


def _run_backward(run: Run, residuals: Any, gradients: Any) -> Any:
    buffer_gradient, new_gradients, after_gradients = gradients
    over_layers = _loop_or_write_out(run, residuals[0])
    total, (expansion_gradients, number_gradients) = lax.platform_dependent(
        *residuals,
        buffer_gradient,
        new_gradients,
        after_gradients.numbers,
        cpu=functools.partial(_gradients, run, over_layers, _add_gradients_on_cpu),
        default=functools.partial(_gradients, run, _write_out, _add_gradients),
    )
    gradients = Growth(number_gradients, None)  # type: ignore[arg-type]
    return total[..., run.read(0)], expansion_gradients, gradients


_run.defvjp(_run_forward, _run_backward)


def _grow(run: Run, over_layers: Any, expand: Any, x: jax.Array, *stacked: Any) -> Any:
    def grow(buffer: jax.Array, index: Any, expansion: Expansion, growth: Growth) -> Any:
        seen = run.read(index)
        expanded = expand(buffer[..., seen], _cut(expansion, seen))
        values, after = _grow_maps(run.graph, expanded, *growth)
        new = standardize(values) if run.training else FeatureMaps(values)
        kept = new.values if new.normalized is None else new.normalized
        buffer = lax.dynamic_update_slice_in_dim(buffer, kept, run.written(index), axis=3)
        return buffer, (expanded, dataclasses.replace(new, normalized=None), after)

    return over_layers(grow, _widen(x, run.read(0), run.width), stacked)


def _gradients(
    run: Run,
    over_layers: Any,
    add_gradients: Any,
    buffer: jax.Array,
    *stacked_and_gradients: Any,
) -> Any:
    *residuals, buffer_gradient, new_gradients, after_gradients = stacked_and_gradients

    def back(total: jax.Array, index: Any, *layer: Any) -> Any:
        expanded, new, expansion, growth, new_gradient, after_gradient = layer
        place = run.written(index), run.growth_rate
        kept, gradient = (lax.dynamic_slice_in_dim(x, *place, axis=3) for x in (buffer, total))
        if run.training:
            new = dataclasses.replace(new, normalized=kept)
            new_gradient = dataclasses.replace(new_gradient, normalized=gradient)
            gradient = standardize_gradient(new, new_gradient)
        else:
            gradient += new_gradient.values

        gradient, of_numbers = _grow_maps_backward(
            run.graph, expanded, *growth, (gradient, after_gradient)
        )
        seen = run.read(index)
        part, of_expansion = add_gradients(
            total[..., seen], buffer[..., seen], gradient, _cut(expansion, seen)
        )
        total = lax.dynamic_update_slice_in_dim(total, part, seen.start, axis=3)
        return total, (_widened(of_expansion, seen, run.width), of_numbers)

    stacked = *residuals, new_gradients, after_gradients
    return over_layers(back, buffer_gradient, stacked, reverse=True)


def _expand(
    maps: jax.Array, expansion: Expansion, convolve: Callable[..., jax.Array] = plain_conv2d
) -> jax.Array:
    """(N, H, W, C) to (N, H, W, 4k)."""
    mean, scale, bias, kernel = expansion
    maps = maps if mean is None else maps - mean
    active = relu(scale_and_shift(maps, scale, bias).astype(kernel.dtype))
    return convolve(active, kernel[None, None])


def _add_gradients(
    total: jax.Array,
    maps: jax.Array,
    gradient: jax.Array,
    expansion: Expansion,
    convolve: Callable[..., jax.Array] = plain_conv2d,
) -> tuple[jax.Array, Expansion]:
    """Add the gradient of the maps to ``total``; return that, and the expansion's."""
    _, transpose = jax.vjp(functools.partial(_expand, convolve=convolve), maps, expansion)
    of_maps, of_expansion = transpose(gradient)
    return total + of_maps, of_expansion


def _expand_on_cpu(maps: jax.Array, expansion: Expansion) -> jax.Array:
    return (_expand_natively if _suits(maps, expansion) else _expand_in_chunks)(maps, expansion)


def _add_gradients_on_cpu(
    total: jax.Array, maps: jax.Array, gradient: jax.Array, expansion: Expansion
) -> tuple[jax.Array, Expansion]:
    suits = _suits(maps, expansion)
    add = _add_gradients_natively if suits else _add_gradients_in_chunks
    return add(total, maps, gradient, expansion)


def _suits(maps: jax.Array, expansion: Expansion) -> bool:
    features = expansion.kernel.shape[-1]
    return features <= native.MOST_FEATURES and native.suits(maps, *jax.tree.leaves(expansion))


@native.differentiated_as(_expand)
def _expand_natively(maps: jax.Array, expansion: Expansion) -> jax.Array:
    return native.expand(maps, *_with_mean(expansion))


@native.differentiated_as(_add_gradients)
def _add_gradients_natively(
    total: jax.Array, maps: jax.Array, gradient: jax.Array, expansion: Expansion
) -> tuple[jax.Array, Expansion]:
    whole = _with_mean(expansion)
    total, scale, bias, kernel = native.add_expansion_gradients(total, maps, gradient, *whole)
    mean = None if expansion.mean is None else -bias * expansion.scale
    return total, Expansion(mean, scale, bias, kernel)


def _with_mean(expansion: Expansion) -> tuple[jax.Array, ...]:
    mean, *rest = expansion
    return jnp.zeros_like(expansion.scale) if mean is None else mean, *rest


def _expand_in_chunks(maps: jax.Array, expansion: Expansion) -> jax.Array:
    def expand(maps: jax.Array) -> jax.Array:
        return _expand(maps, expansion, conv2d)

    return map_over_chunks(expand, maps, _pictures_a_chunk(maps))


def _add_gradients_in_chunks(
    total: jax.Array, maps: jax.Array, gradient: jax.Array, expansion: Expansion
) -> tuple[jax.Array, Expansion]:
    def add(total: jax.Array, maps: jax.Array, gradient: jax.Array) -> Any:
        return _add_gradients(total, maps, gradient, expansion, conv2d)

    return update_over_chunks(add, total, (maps, gradient), _pictures_a_chunk(maps))


def _pictures_a_chunk(maps: Any) -> int:
    return CHUNK_BYTES // (math.prod(maps.shape[1:]) * maps.dtype.itemsize)


def _loop_or_write_out(run: Run, maps: jax.Array) -> Callable[..., Any]:
    """How a CPU goes through the layers: in a loop, which is soon compiled.

    In evaluation not if all maps are one chunk, which is soon compiled too: stacking the layers'
    kernels would take as long as computing with them.
    """
    n, height, width, _ = maps.shape
    all_maps = jax.ShapeDtypeStruct((n, height, width, run.width), maps.dtype)
    is_small = count_chunks(n, _pictures_a_chunk(all_maps)) == 1
    return _write_out if is_small and not run.training else _loop


def _loop(
    function: Callable[..., Any], carry: Any, stacked: tuple[Any, ...], *, reverse: bool = False
) -> Any:
    """``carry, output = function(carry, index, *layer)`` for every layer.

    Returns:
        The last carry, and the outputs, stacked.
    """
    length = jax.tree.leaves(stacked)[0].shape[0]

    def step(carry: Any, each: Any) -> Any:
        index, layer = each
        return function(carry, index, *layer)

    return lax.scan(step, carry, (jnp.arange(length), stacked), reverse=reverse)


def _write_out(
    function: Callable[..., Any], carry: Any, stacked: tuple[Any, ...], *, reverse: bool = False
) -> Any:
    """What ``_loop`` does, without a loop and with an index that is a number."""
    layers = _unstacked(stacked)
    outputs: list[Any] = [None] * len(layers)
    for index in sorted(range(len(layers)), reverse=reverse):
        carry, outputs[index] = function(carry, index, *layers[index])
    return carry, _stacked(outputs)


def _expansion(layer: Any, dtype: Any, channels: slice, width: int) -> Expansion:
    """A layer's, with zeros for the channels of a buffer that it does not read."""
    kernel = layer.conv1.kernel[0, 0].astype(layer.conv1.dtype)
    expansion = Expansion(*layer.norm1.affine(dtype), kernel)  # type: ignore[call-arg]
    return _widened(expansion, channels, width)


def _cut(expansion: Expansion, channels: slice) -> Expansion:
    return jax.tree.map(lambda x: x[channels], expansion)


def _widened(expansion: Expansion, channels: slice, width: int) -> Expansion:
    """An expansion, or its gradient, of ``channels`` of ``width``, and zeros elsewhere."""
    return jax.tree.map(lambda x: _widen(x, channels, width, axis=0), expansion)


def _widen(x: jax.Array, channels: slice, width: int, axis: int = -1) -> jax.Array:
    """``x`` at ``channels`` of ``width`` along an axis, and zeros elsewhere."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (channels.start, width - channels.stop, 0)
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def _without_expansion(layer: Any) -> Any:
    """A module of the same variables without those of the first norm and convolution."""
    rest = copy.copy(layer)
    del rest.norm1, rest.conv1
    return rest


def _is_number(_: Any, variable: Any) -> bool:
    return bool(jnp.issubdtype(variable.dtype, jnp.inexact))


def _stacked(trees: Sequence[Any]) -> Any:
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *trees)


def _unstacked(stacked: Any) -> list[Any]:
    leaves, structure = jax.tree.flatten(stacked)
    layers = zip(*map(_unstack, leaves), strict=True)
    return [jax.tree.unflatten(structure, layer) for layer in layers]


@jax.jit  # traced once for each shape
def _unstack(x: jax.Array) -> list[jax.Array]:
    return [x[index] for index in range(x.shape[0])]
