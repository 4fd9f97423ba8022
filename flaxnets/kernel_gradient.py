"""The gradient of a convolution's kernel as matrix products, in the forms that a CPU computes fast.

They go through the pictures in chunks that stay in a core's cache, and sum in float32 or wider.
"""

from collections.abc import Iterable

import jax
import jax.numpy as jnp
from jax import lax

from flaxnets import winograd
from flaxnets.chunks import sum_over_chunks

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
    So that products are not too narrow, the taps of a row, or all, are features side by side: of
    the gradient, shifted the other way, or of an input of very few channels.
    """
    _, height, width, channels = images.shape
    features = gradient.shape[-1]
    rows = max(height + padding, gradient.shape[1] + size - 1 - padding)
    columns = max(width + padding, gradient.shape[2] + size - 1 - padding)
    after = size - 1 - padding

    def flat(x: jax.Array, before: int, after: int) -> jax.Array:
        filled = ((0, 0), (0, rows - x.shape[1]), (0, columns - x.shape[2]), (0, 0))
        return jnp.pad(jnp.pad(x, filled).reshape(-1, x.shape[-1]), ((before, after), (0, 0)))

    def side_by_side(x: jax.Array, starts: Iterable[int], pixels: int) -> jax.Array:
        return jnp.concatenate([x[start:][:pixels] for start in starts], axis=1)

    def taps_from_input(images: jax.Array, gradient: jax.Array) -> jax.Array:
        pixels = images.shape[0] * rows * columns
        x = flat(images, padding * (columns + 1), after * (columns + 1))
        x = side_by_side(x, range(size), pixels + (size - 1) * columns)
        g = flat(gradient, 0, 0)
        products = [_product(x[i * columns :][:pixels], g) for i in range(size)]
        return jnp.stack(products).reshape(size, size, channels, features)

    def taps_from_gradient(images: jax.Array, gradient: jax.Array) -> jax.Array:
        pixels = images.shape[0] * rows * columns
        x = flat(images, padding * columns, after * columns)
        g = flat(gradient, after, padding)
        g = side_by_side(g, reversed(range(size)), pixels)
        products = [_product(x[i * columns :][:pixels], g) for i in range(size)]
        return jnp.stack(products).reshape(size, channels, size, features).swapaxes(1, 2)

    def all_taps_from_gradient(images: jax.Array, gradient: jax.Array) -> jax.Array:
        pixels = images.shape[0] * rows * columns
        g = flat(gradient, after * (columns + 1), padding * (columns + 1))
        starts = [i * columns + j for i in range(size) for j in range(size)]
        g = side_by_side(g, reversed(starts), pixels)
        product = _product(flat(images, 0, 0), g)
        return product.reshape(channels, size, size, features).transpose(1, 2, 0, 3)

    if size * channels <= features:
        taps, read = taps_from_input, size * channels + features
    elif features >= NARROW_FEATURES:
        taps, read = taps_from_gradient, channels + size * features
    else:
        taps, read = all_taps_from_gradient, channels + size**2 * features
    picture_bytes = rows * columns * read * images.dtype.itemsize
    return sum_over_chunks(taps, (images, gradient), CHUNK_BYTES // picture_bytes)
