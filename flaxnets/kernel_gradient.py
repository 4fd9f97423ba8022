"""The gradient of a convolution's kernel as matrix products, in the forms that a CPU computes fast.

They go through the pictures in chunks that stay in a core's cache, and sum in float32 or wider.
"""

import jax
import jax.numpy as jnp
from jax import lax

from flaxnets.chunks import sum_over_chunks
from flaxnets.im2col import shifted
from flaxnets.pixel_product import product_over_pixels

# Bytes that a chunk's products read, shifted copies among them (measured).
CHUNK_BYTES = 2**21

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
        return product_over_pixels(*flat)[None, None]
    return _by_taps(images, gradient, size, padding)


def _by_taps(images: jax.Array, gradient: jax.Array, size: int, padding: int) -> jax.Array:
    """Tap (i, j) is the product of the input, shifted by i rows and j columns, with the gradient.

    The gradient is shifted by rows, the other way, and its shifts are features side by side: a
    shift by rows is copied in one piece, and products are not too narrow. The input is shifted by
    columns; or, where the products would be too narrow still, the gradient is that too.
    """
    height, width, channels = images.shape[1:]
    columns, features = gradient.shape[2:]
    beyond = size - 1 - padding  # zeros on every side of the gradient

    def shifted_rows(gradient: jax.Array) -> jax.Array:
        edges = ((0, 0), (beyond, beyond), (0, 0), (0, 0))
        padded = lax.optimization_barrier(jnp.pad(gradient, edges))
        rows = [padded[:, start : start + height] for start in reversed(range(size))]
        return jnp.concatenate(rows, axis=-1)

    def row_by_row(images: jax.Array, gradient: jax.Array) -> jax.Array:
        rows = shifted_rows(gradient).reshape(-1, size * features)

        def product(column: int) -> jax.Array:
            x = shifted(images, 2, padding - column, columns)
            return product_over_pixels(x.reshape(-1, channels), rows)

        products = jnp.stack([product(column) for column in range(size)])
        return products.reshape(size, channels, size, features).transpose(2, 0, 1, 3)

    def all_at_once(images: jax.Array, gradient: jax.Array) -> jax.Array:
        edges = ((0, 0), (0, 0), (beyond, beyond), (0, 0))
        rows = lax.optimization_barrier(shifted_rows(jnp.pad(gradient, edges)))
        taps = [rows[:, :, start : start + width] for start in reversed(range(size))]
        flat = jnp.concatenate(taps, axis=-1).reshape(-1, size**2 * features)
        product = product_over_pixels(images.reshape(-1, channels), flat)
        return product.reshape(channels, size, size, features).transpose(2, 1, 0, 3)

    if features >= NARROW_FEATURES:
        taps, read = row_by_row, size * (channels + features)
    else:
        taps, read = all_at_once, channels + size**2 * features
    picture_bytes = height * width * read * images.dtype.itemsize
    return sum_over_chunks(taps, (images, gradient), CHUNK_BYTES // picture_bytes)
