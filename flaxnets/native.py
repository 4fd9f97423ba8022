"""What XLA:CPU computes slowly, computed by functions in C++ that JAX calls on a CPU.

XLA:CPU takes the sum over pixels, of which the gradient of a convolution's kernel is made, at half
of a core's rate, whatever form it is given, and writes what lies between a dense layer's maps and
its convolution to memory. The functions (``cpp/``) do so near a core's rate, in its cache. Where
there is no C++ compiler, where JAX's default backend is no CPU, for other dtypes than float32 and
float64, or with ``FLAXNETS_NATIVE=0`` in the environment, XLA's forms take their place.

JAX exports such a call to a file only if it is told to (``disabled_checks`` of ``jax.export``),
since the file would need the library: to export a gradient for CPUs, set ``FLAXNETS_NATIVE=0``.
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning

from flaxnets import native_library
from flaxnets.chunks import count_shares

# Of an expansion; as many as cpp/expansion.h has room for.
MOST_FEATURES = 256


def suits(*arrays: jax.Array) -> bool:
    """Whether the functions can be called with such arrays: all of one dtype, and none empty."""
    return (
        {str(x.dtype) for x in arrays} in ({dtype} for dtype in native_library.DTYPES)
        and all(x.size for x in arrays)
        and jax.default_backend() == "cpu"
        and native_library.is_available()
    )


def kernel_gradient(
    images: jax.Array, gradient: jax.Array, size: int, stride: int, padding: int
) -> jax.Array:
    """Gradient of a convolution's kernel.

    Args:
        images: (N, H, W, C), the convolution's input; such that it :func:`suits`.
        gradient: (N, H', W', O) at its output, of the same dtype.
        size: k.
        stride: the same in both directions.
        padding: zeros on every side of the input.

    Returns:
        (k, k, C, O) of the same dtype.
    """
    shares = count_shares(images.shape[0])
    parts = [x.reshape(shares, -1, *x.shape[1:]) for x in (images, gradient)]
    return _kernel_gradients(size, stride, padding)(*parts).sum(axis=0)


def expand(
    maps: jax.Array, mean: jax.Array, scale: jax.Array, bias: jax.Array, kernel: jax.Array
) -> jax.Array:
    """``relu((maps - mean) * scale + bias) @ kernel``.

    Args:
        maps: (N, H, W, C); such that all arguments :func:`suits`.
        mean: (C,).
        scale: (C,).
        bias: (C,).
        kernel: (C, O), of ``MOST_FEATURES`` at most.

    Returns:
        (N, H, W, O).
    """
    shares = count_shares(maps.shape[0])
    expansion = _repeated(shares, mean, scale, bias, kernel)
    output = _expansions()(_pixels(maps, shares), *expansion)
    return output.reshape(*maps.shape[:-1], -1)


def add_expansion_gradients(
    total: jax.Array,
    maps: jax.Array,
    gradient: jax.Array,
    mean: jax.Array,
    scale: jax.Array,
    bias: jax.Array,
    kernel: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
    """The gradients of :func:`expand`.

    Args:
        total: (N, H, W, C), to which that of the maps is added, in place where it can be.
        maps: as there, like all that follow but
        gradient: (N, H, W, O) at its output.
        mean: (C,).
        scale: (C,).
        bias: (C,).
        kernel: (C, O).

    Returns:
        The new total, and the gradients of scale, bias and kernel.
    """
    shares = count_shares(maps.shape[0])
    pixels = [_pixels(x, shares) for x in (total, maps, gradient)]
    added, *sums = _expansion_gradients()(*pixels, *_repeated(shares, mean, scale, bias, kernel))
    of_scale, of_bias, of_kernel = (x.sum(axis=0) for x in sums)
    return added.reshape(total.shape), of_scale, of_bias, of_kernel


def _pixels(x: jax.Array, shares: int) -> jax.Array:
    """(N, H, W, C) to (S, N / S * H * W, C)."""
    return x.reshape(shares, -1, x.shape[-1])


def _repeated(shares: int, *arrays: jax.Array) -> list[jax.Array]:
    return [jnp.broadcast_to(x, (shares, *x.shape)) for x in arrays]


@functools.cache
def _kernel_gradients(size: int, stride: int, padding: int) -> Callable[..., jax.Array]:
    """From (S, N, H, W, C) and (S, N, H', W', O) to (S, k, k, C, O)."""

    def call(images: jax.Array, gradient: jax.Array) -> jax.Array:
        shape = images.shape[0], size, size, images.shape[-1], gradient.shape[-1]
        function = jax.ffi.ffi_call(
            native_library.target("kernel_gradients", images.dtype),
            jax.ShapeDtypeStruct(shape, images.dtype),
        )
        return function(images, gradient, stride=np.int64(stride), padding=np.int64(padding))

    return _share_by_share(call, "s n h w c, s n i j o -> s k l c o")


@functools.cache
def _expansions() -> Callable[..., jax.Array]:
    """From (S, P, C), (S, C), (S, C), (S, C) and (S, C, O) to (S, P, O)."""

    def call(maps: jax.Array, *expansion: jax.Array) -> jax.Array:
        shape = *maps.shape[:-1], expansion[-1].shape[-1]
        function = jax.ffi.ffi_call(
            native_library.target("expansions", maps.dtype),
            jax.ShapeDtypeStruct(shape, maps.dtype),
        )
        return function(maps, *expansion)

    return _share_by_share(call, "s p c, s c, s c, s c, s c o -> s p o")


@functools.cache
def _expansion_gradients() -> Callable[..., Sequence[jax.Array]]:
    """From (S, P, C) twice, (S, P, O), and the rest as above, to the like of total and the rest."""

    def call(total: jax.Array, *arguments: jax.Array) -> Sequence[jax.Array]:
        function = jax.ffi.ffi_call(
            native_library.target("expansion_gradients", total.dtype),
            [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in (total, *arguments[-3:])],
            input_output_aliases={0: 0},
        )
        return function(total, *arguments)

    rule = "s p c, s p c, s p o, s c, s c, s c, s c o -> s p c, s c, s c, s c o"
    return _share_by_share(call, rule)


def _share_by_share(call: Callable[..., Any], rule: str) -> Callable[..., Any]:
    """``call``, whose arguments and results have a leading axis of shares.

    These may lie on several devices; ``jax.vmap`` makes more of them. ``rule`` names all axes, as
    ``jax.experimental.custom_partitioning`` wants it, and that of the shares s.
    """

    def partition(mesh: Any, arguments: Sequence[Any], result: Any) -> Any:
        of_result, of_arguments = jax.tree.map(lambda x: x.sharding, (result, tuple(arguments)))
        return mesh, call, of_result, of_arguments

    partitioned = custom_partitioning(call)
    partitioned.def_partition(
        partition=partition,
        sharding_rule=rule,
        need_replication_factors=tuple(axis for axis in dict.fromkeys(rule) if axis not in "s ,->"),
    )
    batchable = custom_vmap(partitioned)

    @batchable.def_vmap
    def batched(
        axis_size: int, is_batched: Sequence[bool], *arguments: jax.Array
    ) -> tuple[Any, Any]:
        spread = [
            x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, batched in zip(arguments, is_batched, strict=True)
        ]
        results = batchable(*[x.reshape(-1, *x.shape[2:]) for x in spread])
        results = jax.tree.map(lambda x: x.reshape(axis_size, -1, *x.shape[1:]), results)
        return results, jax.tree.map(lambda _: True, results)

    return batchable
