"""3x3 convolutions of stride 1 with fewer multiplications, and their kernels' gradients.

Winograd's minimal filtering, as Lavin & Gray 2016 (arXiv:1509.09308, section 4) use it: the padded
input is cut into 4x4 tiles that overlap by two pixels, and tiles and kernel (or tiles and gradient)
are transformed so that 16 products take the place of 36. The rounding error is about twice that of
the direct form.
"""

import functools
import math
import operator

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from flaxnets.chunks import map_over_chunks, sum_over_chunks
from flaxnets.pixel_product import product_over_pixels

# Each transforms one of a tile's two directions. Output of F(2x2, 3x3): A'[(G k G') * (B' d B)]A.
INPUT = np.array([[1, 0, -1, 0], [0, 1, 1, 0], [0, -1, 1, 0], [0, -1, 0, 1]])  # B'
KERNEL = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])  # G
OUTPUT = np.array([[1, 1, 1, 0], [0, 1, -1, 1]])  # A'
# In F(3x3, 2x2) the gradient takes the kernel's place, and the kernel's gradient the output's.
GRADIENT = np.array([[1, 0], [0.5, 0.5], [0.5, -0.5], [0, 1]])
KERNEL_GRADIENT = np.array([[1, 1, 1, 0], [0, 1, -1, 0], [0, 1, 1, 1]])

# Bytes of a chunk's transformed tiles; transformed both ways, at least as many tiles as channels:
# reading the transformed kernel, or adding to the sums, once a chunk must not be what takes the
# time.
CHUNK_BYTES = 2**21
# From here on fewer products outweigh the transforms, which are as many as channels and features
# together (measured on AVX-512).
FEWEST_CHANNELS, FEWEST_TOGETHER = 32, 128
# Of so many channels and features a kernel's gradient is transformed both ways.
FEWEST_BOTH_WAYS = 128


def suits(images: jax.Array, features: int, size: int, stride: int, padding: int) -> bool:
    """Whether a convolution can be computed in this way, and faster than directly.

    Few tiles of many channels are not: transforming the kernel, which no other core helps with, is
    then what takes the time. Neither is bfloat16, whose digits the transforms would use up.
    """
    channels = images.shape[-1]
    return (
        (size, stride, padding) == (3, 1, 1)
        and images.dtype in (jnp.float32, jnp.float64)
        and min(channels, features) >= FEWEST_CHANNELS
        and channels + features >= FEWEST_TOGETHER
        and images.shape[0] * math.prod(_grid(images)) >= max(channels, features)
    )


def _grid(images: jax.Array) -> tuple[int, int]:
    """Rows and columns of a picture's tiles."""
    return -(-images.shape[1] // 2), -(-images.shape[2] // 2)


def _pictures_a_chunk(images: jax.Array, features: int) -> int:
    """At most so many."""
    tiles, channels = math.prod(_grid(images)), images.shape[-1]
    tile_bytes = 16 * (channels + features) * images.dtype.itemsize
    return max(CHUNK_BYTES // (tiles * tile_bytes), -(-max(channels, features) // tiles))


def convolve(images: jax.Array, kernel: jax.Array) -> jax.Array:
    """F(2x2, 3x3): cross-correlation of (N, H, W, C), padded by 1, with (3, 3, C, O).

    Returns:
        (N, H, W, O).
    """
    return _convolve(images, _transform_kernels(KERNEL, kernel), 1)


def images_gradient(gradient: jax.Array, kernel: jax.Array) -> jax.Array:
    """F(2x2, 3x3) of the gradient (N, H, W, O) at the output with the kernel turned round.

    Returns:
        (N, H, W, C).
    """
    return _convolve(gradient, _transform_kernels(KERNEL[:, ::-1], kernel), 2)


def _convolve(images: jax.Array, factors: jax.Array, contracted: int) -> jax.Array:
    """With transformed kernels (4, 4, C, O), of which one of the last two axes is contracted."""
    height, width = images.shape[1:3]
    high, wide = _grid(images)
    factors = factors.reshape(16, *factors.shape[2:])
    features = factors.shape[3 - contracted]

    def convolved(images: jax.Array) -> jax.Array:
        tiles = _input_tiles(images, high, wide)
        products = lax.dot_general(tiles, factors, (((2,), (contracted,)), ((0,), (0,))))
        products = products.reshape(4, 4, -1, high, wide, features)
        rows = [
            jnp.stack(_combine(OUTPUT, list(row)), axis=3)
            for row in _combine(OUTPUT, list(products))
        ]
        return jnp.stack(rows, axis=2).reshape(-1, 2 * high, 2 * wide, features)

    most = _pictures_a_chunk(images, features)
    return map_over_chunks(convolved, images, most)[:, :height, :width]


def kernel_gradient(images: jax.Array, gradient: jax.Array) -> jax.Array:
    """From (N, H, W, C) and the gradient at the output (N, H, W, O).

    Returns:
        (3, 3, C, O).
    """
    both_ways = min(images.shape[-1], gradient.shape[-1]) >= FEWEST_BOTH_WAYS
    return (_both_ways if both_ways else _along_rows)(images, gradient)


def _both_ways(images: jax.Array, gradient: jax.Array) -> jax.Array:
    """F(3x3, 2x2): 16 products take the place of 36."""
    high, wide = _grid(images)

    def products(images: jax.Array, gradient: jax.Array) -> jax.Array:
        below, right = 2 * high - gradient.shape[1], 2 * wide - gradient.shape[2]
        gradient = jnp.pad(gradient, ((0, 0), (0, below), (0, right), (0, 0)))
        gradient_tiles = _tiles(GRADIENT, gradient, high, wide)
        tiles = _input_tiles(images, high, wide)
        return product_over_pixels(tiles, gradient_tiles)

    most = _pictures_a_chunk(images, gradient.shape[-1])
    sums = sum_over_chunks(products, (images, gradient), most)
    return _transform_kernels(KERNEL_GRADIENT, sums.reshape(4, 4, *sums.shape[1:]))


def _along_rows(images: jax.Array, gradient: jax.Array) -> jax.Array:
    """F(3, 2) in each row of pixels: 4 products take the place of 6, of fewer transformed arrays.

    For the three rows of taps the gradient is shifted by rows, side by side.
    """
    height, (_, wide) = images.shape[1], _grid(images)
    channels, features = images.shape[-1], gradient.shape[-1]
    right = 2 * wide - images.shape[2]

    def products(images: jax.Array, gradient: jax.Array) -> jax.Array:
        padded = jnp.pad(gradient, ((0, 0), (1, 1), (0, right), (0, 0)))
        rows = [padded[:, start : start + height] for start in (2, 1, 0)]
        gradients = _column_tiles(GRADIENT, jnp.concatenate(rows, axis=-1), wide)
        padded = jnp.pad(images, ((0, 0), (0, 0), (1, 1 + right), (0, 0)))
        tiles = _column_tiles(INPUT, padded, wide)
        return product_over_pixels(
            tiles.reshape(4, -1, channels), gradients.reshape(4, -1, 3 * features)
        )

    row_bytes = 4 * wide * (channels + 3 * features) * images.dtype.itemsize
    sums = sum_over_chunks(products, (images, gradient), CHUNK_BYTES // (height * row_bytes))
    columns = jnp.stack(_combine(KERNEL_GRADIENT, list(sums.reshape(4, channels, 3, features))))
    return columns.transpose(2, 0, 1, 3)


def _input_tiles(images: jax.Array, high: int, wide: int) -> jax.Array:
    below, right = 2 * high + 1 - images.shape[1], 2 * wide + 1 - images.shape[2]
    padded = jnp.pad(images, ((0, 0), (1, below), (1, right), (0, 0)))
    return _tiles(INPUT, padded, high, wide)


def _tiles(transform: np.ndarray, x: jax.Array, high: int, wide: int) -> jax.Array:
    """Cut (n, H, W, C) into tiles, one every two pixels, and transform them both ways.

    The barriers keep XLA from computing each of the 16 parts from the pictures again, in a loop
    that it compiles for that part alone.

    Returns:
        (16, n * high * wide, C).
    """
    size = transform.shape[1]
    columns = lax.optimization_barrier(_column_tiles(transform, x, wide))
    rows = _combine(transform, [columns[:, :, i : i + 2 * high : 2] for i in range(size)])
    return jnp.stack(rows).reshape(16, -1, x.shape[-1])


def _column_tiles(transform: np.ndarray, x: jax.Array, wide: int) -> jax.Array:
    """Cut the rows of (n, H, W, C) into pieces, one every two pixels, and transform them.

    Returns:
        (4, n, H, wide, C).
    """
    x = lax.optimization_barrier(x)
    columns = [x[:, :, start : start + 2 * wide : 2] for start in range(transform.shape[1])]
    return jnp.stack(_combine(transform, columns))


def _combine(transform: np.ndarray, parts: list[jax.Array]) -> list[jax.Array]:
    """The matrix times a column of arrays."""

    def total(row: np.ndarray) -> jax.Array:
        factors = zip(row.tolist(), parts, strict=True)
        return functools.reduce(operator.add, [factor * part for factor, part in factors if factor])

    return [total(row) for row in transform]


def _transform_kernels(transform: np.ndarray, kernels: jax.Array) -> jax.Array:
    """Transform (k, k, C, O) both ways: (m, m, C, O), where the matrix is (m, k)."""
    both_ways = jnp.asarray(np.kron(transform, transform), kernels.dtype)
    flat = kernels.reshape(both_ways.shape[1], -1)
    product = jnp.matmul(both_ways, flat, precision=lax.Precision.HIGHEST)
    return product.reshape(len(transform), len(transform), *kernels.shape[2:])
