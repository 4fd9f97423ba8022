"""The gradient of a convolution's kernel as matrix products, in the forms that a CPU computes fast.

They go through the pictures in chunks that stay in a core's cache, and sum in float32 or wider.
"""

import jax
import jax.numpy as jnp
from jax import lax

from flaxnets import winograd
from flaxnets.chunks import sum_over_chunks

# Bytes of a chunk's input: about half of a core's second-level cache.
CHUNK_BYTES = 2**20

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
    if winograd.suits(images, features, size, 1, padding):
        return winograd.kernel_gradient(images, gradient)
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
    return sum_over_chunks(taps, (images, gradient), CHUNK_BYTES // chunk_bytes)
