"""The gradient of a convolution's kernel as matrix products, in the forms that a CPU computes fast.

Both forms go through the pictures in chunks that stay in a core's cache, and sum in float32 or
wider.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from jax import lax

Transform = Callable[[list[jax.Array]], list[jax.Array]]

# Bytes of a chunk's input: about half of a core's second-level cache, or all of it for tiles, whose
# sums are larger than the chunk.
CHUNK_BYTES = 2**20
TILE_CHUNK_BYTES = 2**21

# From here on tiles are faster (measured on AVX-512): enough channels that products outweigh the
# transforms, and more tiles than channels, so that the sums are not what takes the time.
TILE_CHANNELS = 128
# Below so many features all taps are multiplied at once; their products would be too narrow.
NARROW_FEATURES = 16


def kernel_gradient(images: jax.Array, gradient: jax.Array, size: int, padding: int) -> jax.Array:
    """Gradient of the kernel of a convolution of stride 1.

    Args:
        images: (N, H, W, C), the convolution's input.
        gradient: (N, H', W', O) at its output.
        size: k.
        padding: zeros on every side of the input.

    Returns:
        (k, k, C, O), float32 or wider.
    """
    channels, features = images.shape[-1], gradient.shape[-1]
    if size == 1 and padding == 0:
        flat = images.reshape(-1, channels), gradient.reshape(-1, features)
        return _product(*flat)[None, None]
    tiles = gradient.shape[0] * -(-gradient.shape[1] // 2) * -(-gradient.shape[2] // 2)
    wide = min(channels, features) >= TILE_CHANNELS and tiles >= max(channels, features)
    if wide and (size, padding) == (3, 1):
        return _by_tiles(images, gradient)
    return _by_taps(images, gradient, size, padding)


def _product(a: jax.Array, b: jax.Array) -> jax.Array:
    """(..., M, C), (..., M, O) to (..., C, O)."""
    batch = tuple(range(a.ndim - 2))
    return lax.dot_general(
        a,
        b,
        dimension_numbers=(((a.ndim - 2,), (a.ndim - 2,)), (batch, batch)),
        preferred_element_type=jnp.promote_types(jnp.float32, a.dtype),
    )


def _sum_over_chunks(
    function: Callable[[jax.Array, jax.Array], jax.Array],
    images: jax.Array,
    gradient: jax.Array,
    most: int,
) -> jax.Array:
    """Sum of ``function(images, gradient)`` over chunks of at most so many pictures.

    Where the pictures lie spread over several devices, each sums its own.
    """
    count, devices = images.shape[0], jax.device_count()
    shares = devices if count % devices == 0 else 1
    share = count // shares
    chunk = max(n for n in range(1, share + 1) if share % n == 0 and n <= max(1, most))
    images, gradient = (
        x.reshape(shares, share // chunk, chunk, *x.shape[1:]) for x in (images, gradient)
    )

    def add(index: jax.Array, totals: jax.Array) -> jax.Array:
        pictures = (
            lax.dynamic_index_in_dim(x, index, axis=1, keepdims=False) for x in (images, gradient)
        )
        return totals + jax.vmap(function)(*pictures)

    result = jax.eval_shape(function, images[0, 0], gradient[0, 0])
    totals = jnp.zeros((shares, *result.shape), result.dtype)
    return lax.fori_loop(0, share // chunk, add, totals).sum(axis=0)


def _by_taps(images: jax.Array, gradient: jax.Array, size: int, padding: int) -> jax.Array:
    """Tap (i, j) is the product of the input, shifted by i rows and j columns, with the gradient.

    Over pictures flattened to rows of pixels a shift is a contiguous slice. One zero column keeps
    the rows apart, and zero rows the pictures: what lies in front of a row is the end of the last.
    """
    _, height, width, channels = images.shape
    features = gradient.shape[-1]
    rows = max(height + padding, gradient.shape[1] + size - 1 - padding)
    columns = max(width + padding, gradient.shape[2] + size - 1 - padding)

    def flat(x: jax.Array, before: int, after: int) -> jax.Array:
        filled = ((0, 0), (0, rows - x.shape[1]), (0, columns - x.shape[2]), (0, 0))
        return jnp.pad(jnp.pad(x, filled).reshape(-1, x.shape[-1]), ((before, after), (0, 0)))

    def taps(images: jax.Array, gradient: jax.Array) -> jax.Array:
        pixels = images.shape[0] * rows * columns
        right = size - 1 - padding
        x = flat(images, padding * columns, right * columns)
        g = flat(gradient, right, padding)
        g = jnp.concatenate([g[size - 1 - j :][:pixels] for j in range(size)], axis=1)
        if features >= NARROW_FEATURES:
            products = [_product(x[i * columns :][:pixels], g) for i in range(size)]
            return jnp.stack(products).reshape(size, channels, size, features).swapaxes(1, 2)
        x = x[padding * columns :][:pixels]
        g = jnp.pad(g, ((right * columns, padding * columns), (0, 0)))
        g = jnp.concatenate([g[(size - 1 - i) * columns :][:pixels] for i in range(size)], axis=1)
        return _product(x, g).reshape(channels, size, size, features).transpose(1, 2, 0, 3)

    chunk_bytes = rows * columns * channels * images.dtype.itemsize
    return _sum_over_chunks(taps, images, gradient, CHUNK_BYTES // chunk_bytes)


def _by_tiles(images: jax.Array, gradient: jax.Array) -> jax.Array:
    """Winograd's F(3x3, 2x2) (Lavin & Gray 2016, arXiv:1509.09308, section 4.2).

    2x2 tiles of the gradient and the 4x4 tiles of the input under them are transformed so that 16
    products take the place of 36. The rounding error is about twice that of the taps.
    """
    high, wide = -(-gradient.shape[1] // 2), -(-gradient.shape[2] // 2)

    def transformed(x: jax.Array, transform: Transform, length: int) -> jax.Array:
        """(n, 2 high + length - 2, 2 wide + length - 2, C) to (16, tiles, C)."""
        rows = transform([x[:, i : i + 2 * high : 2] for i in range(length)])
        both = [
            part
            for row in rows
            for part in transform([row[:, :, j : j + 2 * wide : 2] for j in range(length)])
        ]
        return jnp.stack(both).reshape(16, -1, x.shape[-1])

    def products(images: jax.Array, gradient: jax.Array) -> jax.Array:
        below, right = (2 * n + 1 - m for n, m in zip((high, wide), images.shape[1:3], strict=True))
        x = jnp.pad(images, ((0, 0), (1, below), (1, right), (0, 0)))
        below, right = (2 * n - m for n, m in zip((high, wide), gradient.shape[1:3], strict=True))
        g = jnp.pad(gradient, ((0, 0), (0, below), (0, right), (0, 0)))
        return _product(transformed(x, _input_tile, 4), transformed(g, _gradient_tile, 2))

    picture_bytes = 16 * high * wide * (images.shape[-1] + gradient.shape[-1])
    picture_bytes *= images.dtype.itemsize
    sums = _sum_over_chunks(products, images, gradient, TILE_CHUNK_BYTES // picture_bytes)
    sums = sums.reshape(4, 4, *sums.shape[1:])
    rows = _taps(list(sums))
    return jnp.stack([jnp.stack(_taps(list(row))) for row in rows])


def _input_tile(d: list[jax.Array]) -> list[jax.Array]:
    return [d[0] - d[2], d[1] + d[2], d[2] - d[1], d[3] - d[1]]


def _gradient_tile(g: list[jax.Array]) -> list[jax.Array]:
    return [g[0], (g[0] + g[1]) / 2, (g[0] - g[1]) / 2, g[1]]


def _taps(m: list[jax.Array]) -> list[jax.Array]:
    return [m[0] + m[1] + m[2], m[1] - m[2], m[1] + m[2] + m[3]]
