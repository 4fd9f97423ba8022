"""What XLA:CPU computes slowly, computed by functions in C++ that JAX calls on a CPU.

XLA:CPU takes the sum over pixels, of which the gradient of a convolution's kernel is made, at half
of a core's rate, whatever form it is given; it computes with the zeros that pad a dense layer; and
it reads what batch norm sums several times. The functions (``cpp/``) do not. Where there is no C++
compiler, where JAX's default backend is no CPU, for other dtypes than float32 and float64, or with
``FLAXNETS_NATIVE=0`` in the environment, XLA's forms take their place.

JAX exports such a call to a file only if it is told to (``disabled_checks`` of ``jax.export``),
since the file would need the library: to export for CPUs, set ``FLAXNETS_NATIVE=0``. With several
devices, JAX's cache of compiled programs needs
``JAX_REMOVE_CUSTOM_PARTITIONING_PTR_FROM_CACHE_KEY=1`` to find such a program again
(``train.compilation`` sees to that).
"""

import functools
import hashlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning

from flaxnets import native_library
from flaxnets.chunks import count_shares

# Of a convolution; as many as cpp/narrow_convolution.h has room for.
MOST_CHANNELS = 64

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


def differentiated_as(plain: Callable[..., Any]) -> Callable[..., Any]:
    """A decorator for a function that computes what ``plain`` does, but JAX can't look into."""

    def decorate(function: Callable[..., Any]) -> Any:
        decorated = jax.custom_vjp(function)
        decorated.defvjp(
            lambda *arguments: (decorated(*arguments), arguments),
            lambda arguments, gradients: jax.vjp(plain, *arguments)[1](gradients),
        )
        return decorated

    return decorate


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
    of_shares = _kernel_gradients(_a_share(images), size, stride, padding)
    return of_shares(images, gradient).sum(axis=0)


def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """A 3x3 convolution with a border of one zero.

    Args:
        images: (N, H, W, C), of ``MOST_CHANNELS`` at most; such that both arguments :func:`suits`.
        kernel: (3, 3, C, O).

    Returns:
        (N, H, W, O).
    """
    return _narrow_convolutions(_a_share(images))(images, *_repeated(images, kernel))


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
    expansion = _repeated(maps, mean, scale, bias, kernel)
    return _expansions(_a_share(maps))(maps, *expansion)


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
    expansion = _repeated(maps, mean, scale, bias, kernel)
    total, *sums = _expansion_gradients(_a_share(maps))(total, maps, gradient, *expansion)
    of_scale, of_bias, of_kernel = (x.sum(axis=0) for x in sums)
    return total, of_scale, of_bias, of_kernel


def channel_moments(x: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The mean and variance of each channel.

    Args:
        x: (N, H, W, C); such that it :func:`suits`.

    Returns:
        The mean; what it is off by, being rounded; and the mean squared distance from both: (C,).
    """
    mean, off, var = jnp.unstack(_channel_moments(_a_share(x))(x), axis=1)
    # Shares are of one size, and nearer to one another than their numbers are.
    middle = mean.mean(axis=0)
    off += mean - middle
    off, square, var = jnp.stack([off, jnp.square(off), var], axis=1).mean(axis=0)
    return middle, off, var + (square - jnp.square(off))


def channel_means(a: jax.Array, b: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The means of ``a`` and of ``a * b`` over all axes but the last.

    Args:
        a: (N, H, W, C).
        b: of the same shape, such that both :func:`suits`.

    Returns:
        (C,) each.
    """
    mean, product_mean = _channel_means(_a_share(a))(a, b).mean(axis=0)
    return mean, product_mean


def _a_share(x: jax.Array) -> int:
    """How many of the pictures each device computes."""
    return x.shape[0] // count_shares(x.shape[0])


def _repeated(pictures: jax.Array, *arrays: jax.Array) -> list[jax.Array]:
    """For each share."""
    return [jnp.broadcast_to(x, (count_shares(pictures.shape[0]), *x.shape)) for x in arrays]


@functools.cache
def _kernel_gradients(share: int, size: int, stride: int, padding: int) -> Callable[..., Any]:
    def shapes(images: jax.Array, gradient: jax.Array) -> tuple[int, ...]:
        pictures, *_, channels = images.shape
        return pictures // share, size, size, channels, gradient.shape[3]

    return _share_by_share(
        share,
        "kernel_gradients",
        "(s n) h w c, (s n) i j o -> s k l c o",
        shapes,
        stride=np.int64(stride),
        padding=np.int64(padding),
    )


@functools.cache
def _narrow_convolutions(share: int) -> Callable[..., Any]:
    return _share_by_share(
        share,
        "narrow_convolutions",
        "(s n) h w c, s k l c o -> (s n) h w o",
        lambda images, kernels: (*images.shape[:3], kernels.shape[4]),
    )


@functools.cache
def _expansions(share: int) -> Callable[..., Any]:
    return _share_by_share(
        share,
        "expansions",
        "(s n) h w c, s c, s c, s c, s c o -> (s n) h w o",
        lambda maps, *expansion: (*maps.shape[:3], expansion[-1].shape[2]),
    )


@functools.cache
def _expansion_gradients(share: int) -> Callable[..., Any]:
    return _share_by_share(
        share,
        "expansion_gradients",
        "(s n) h w c, (s n) h w c, (s n) h w o, s c, s c, s c, s c o"
        " -> (s n) h w c, s c, s c, s c o",
        lambda total, *rest: [x.shape for x in (total, *rest[-3:])],
        in_place=True,
    )


@functools.cache
def _channel_moments(share: int) -> Callable[..., Any]:
    return _share_by_share(
        share,
        "channel_moments",
        "(s n) h w c -> s k c",
        lambda x: (x.shape[0] // share, 3, x.shape[3]),
    )


@functools.cache
def _channel_means(share: int) -> Callable[..., Any]:
    return _share_by_share(
        share,
        "channel_means",
        "(s n) h w c, (s n) h w c -> s k c",
        lambda a, b: (a.shape[0] // share, 2, a.shape[3]),
    )


def _share_by_share(
    share: int,
    name: str,
    rule: str,
    shapes: Callable[..., Any],
    *,
    in_place: bool = False,
    **attributes: Any,
) -> Callable[..., Any]:
    """A function in C++ of arrays whose first axis is one of shares, or of the shares' pictures.

    The shares may lie on several devices; ``jax.vmap`` makes more of them.

    Args:
        share: how many pictures.
        name: of the function.
        rule: all axes, as ``jax.experimental.custom_partitioning`` wants them; s is that of the
            shares, and n that of a share's pictures.
        shapes: from the arguments to the result's shape, or to a list of shapes.
        in_place: whether the first result may take the first argument's place. (No reshaped array's
            place can be taken: XLA copies it.)
        attributes: of the function.
    """

    def call(_: jax.Array, *arguments: jax.Array) -> Any:
        dtype = arguments[0].dtype
        results = shapes(*arguments)
        several = isinstance(results, list)
        structs = [jax.ShapeDtypeStruct(x, dtype) for x in (results if several else [results])]
        function = jax.ffi.ffi_call(
            native_library.target(name, dtype),
            structs if several else structs[0],
            input_output_aliases={0: 0} if in_place else None,
        )
        return function(*arguments, **attributes)

    def partition(mesh: Any, arguments: Sequence[Any], result: Any) -> Any:
        of_result, of_arguments = jax.tree.map(lambda x: x.sharding, (result, tuple(arguments)))
        return mesh, call, of_result, of_arguments

    def identity(dtype: Any) -> np.ndarray:
        """Numbers that tell the function from others, and its library from other versions."""
        text = repr((native_library.target(name, dtype), sorted(attributes.items())))
        return np.frombuffer(hashlib.sha256(text.encode()).digest(), np.uint32)

    def identified(*arguments: jax.Array) -> Any:
        # Of what is partitioned, JAX's cache of compiled programs sees the arguments alone.
        numbers = jnp.asarray(identity(arguments[0].dtype))
        return (partitioned if jax.device_count() > 1 else call)(numbers, *arguments)

    partitioned = custom_partitioning(call)
    partitioned.def_partition(
        partition=partition,
        sharding_rule=f"z, {rule}",
        need_replication_factors=tuple(x for x in dict.fromkeys(f"z{rule}") if x not in "s (),->"),
        n=share,
    )
    batchable = custom_vmap(identified)

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
