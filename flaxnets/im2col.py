"""Convolutions and their gradients as one matrix product over the neighbourhoods of all pixels.

What is known as im2col: as exact as, and for many channels or large strides faster than, what XLA
makes of them on a CPU. The neighbourhoods, k^2 times as large as the input, exist for a chunk of
pictures only.
"""

import math

import jax
import jax.numpy as jnp
from jax import lax

from flaxnets.chunks import map_over_chunks, sum_over_chunks
from flaxnets.pixel_product import product_over_pixels

# Bytes of a chunk's neighbourhoods, unless its pixels were then fewer than four times the channels:
# reading the kernel, or adding to its gradient, once a chunk must not be what takes the time.
CHUNK_BYTES = 2**21
# From here on the product outweighs gathering what it multiplies (measured).
FEWEST_CHANNELS = 128


def suits(images: jax.Array, features: int, size: int) -> bool:
    """Whether a convolution is faster in this way than XLA's own. (A strided one's gradients are
    always.)
    """
    return (
        size > 1
        and min(images.shape[-1], features) >= FEWEST_CHANNELS
        and images.dtype in (jnp.float32, jnp.float64)
    )


def neighbourhoods(images: jax.Array, size: int, stride: int, padding: int) -> jax.Array:
    """What each pixel of the output depends on: (N, H, W, C) to (N, H', W', k^2 C)."""
    x = jnp.pad(images, ((0, 0), (padding, padding), (padding, padding), (0, 0)))
    high, wide = (_places(length, size, stride, 0) for length in x.shape[1:3])
    starts = [(row, column) for row in range(size) for column in range(size)]
    parts = [
        x[:, row : row + (high - 1) * stride + 1 : stride, column:][
            :, :, : (wide - 1) * stride + 1 : stride
        ]
        for row, column in starts
    ]
    return jnp.concatenate(parts, axis=-1)


def convolve(images: jax.Array, kernel: jax.Array, stride: int, padding: int) -> jax.Array:
    """Cross-correlation of (N, H, W, C) with (k, k, C, O).

    Returns:
        (N, H', W', O).
    """
    size, *_, features = kernel.shape
    flat = kernel.reshape(-1, features)

    def convolved(images: jax.Array) -> jax.Array:
        return neighbourhoods(images, size, stride, padding) @ flat

    pixels = math.prod(_places(length, size, stride, padding) for length in images.shape[1:3])
    return map_over_chunks(convolved, images, _pictures_a_chunk(pixels, kernel))


def images_gradient(
    images: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, padding: int
) -> jax.Array:
    """From the gradient (N, H', W', O) at the output, of images of which shape and dtype matter.

    Returns:
        (N, H, W, C).
    """
    size, _, channels, features = kernel.shape
    height, width = images.shape[1:3]
    flat = kernel.reshape(-1, features)
    wide = jnp.promote_types(jnp.float32, gradient.dtype)

    def spread(gradient: jax.Array) -> jax.Array:
        dimensions = ((3,), (1,)), ((), ())
        parts = lax.dot_general(gradient, flat, dimensions, preferred_element_type=wide)
        parts = parts.reshape(*gradient.shape[:3], size, size, channels)
        rows = [parts[:, :, :, row] for row in range(size)]
        sums = _scatter(rows, 1, height, stride, padding)
        columns = [sums[:, :, :, column] for column in range(size)]
        return _scatter(columns, 2, width, stride, padding).astype(images.dtype)

    pixels = math.prod(gradient.shape[1:3])
    return map_over_chunks(spread, gradient, _pictures_a_chunk(pixels, kernel))


def _scatter(taps: list[jax.Array], axis: int, length: int, stride: int, padding: int) -> jax.Array:
    """Add what tap t has at place p to the pixel ``stride * p + t - padding`` of an axis.

    The pixels of each phase, which are ``stride`` apart, are sums of taps shifted by whole places.
    """
    places = -(-length // stride)

    def total(phase: int) -> jax.Array:
        shape = list(taps[0].shape)
        shape[axis] = places
        pixels = jnp.zeros(shape, taps[0].dtype)
        for number, tap in enumerate(taps):
            places_off, pixels_off = divmod(number - padding - phase, stride)
            if pixels_off == 0:
                pixels += shifted(tap, axis, places_off, places)
        return pixels

    phases = jnp.stack([total(phase) for phase in range(stride)], axis + 1)
    pixels = phases.reshape(*phases.shape[:axis], -1, *phases.shape[axis + 2 :])
    return lax.slice_in_dim(pixels, 0, length, axis=axis)


def shifted(x: jax.Array, axis: int, places: int, length: int) -> jax.Array:
    """``x`` moved along an axis of a new length, with zeros where it was not."""
    edges = [(0, 0, 0)] * x.ndim
    edges[axis] = (places, length - x.shape[axis] - places, 0)  # below zero they cut off
    return lax.pad(x, jnp.zeros((), x.dtype), edges)


def kernel_gradient(
    images: jax.Array, kernel: jax.Array, gradient: jax.Array, stride: int, padding: int
) -> jax.Array:
    """From (N, H, W, C) and the gradient (N, H', W', O), for a kernel of a shape and dtype.

    Returns:
        (k, k, C, O), float32 or wider.
    """
    size, *_, features = kernel.shape

    def product(images: jax.Array, gradient: jax.Array) -> jax.Array:
        gathered = neighbourhoods(images, size, stride, padding)
        flat = gathered.reshape(-1, gathered.shape[-1]), gradient.reshape(-1, features)
        return product_over_pixels(*flat)

    pixels = math.prod(gradient.shape[1:3])
    most = _pictures_a_chunk(pixels, kernel)
    return sum_over_chunks(product, (images, gradient), most).reshape(kernel.shape)


def _places(length: int, size: int, stride: int, padding: int) -> int:
    """The output's pixels in one direction."""
    return (length + 2 * padding - size) // stride + 1


def _pictures_a_chunk(pixels: int, kernel: jax.Array) -> int:
    """At most so many, of so many pixels at the output."""
    size, _, channels, features = kernel.shape
    picture_bytes = pixels * size**2 * channels * kernel.dtype.itemsize
    return max(CHUNK_BYTES // picture_bytes, -(-4 * max(channels, features) // pixels))
