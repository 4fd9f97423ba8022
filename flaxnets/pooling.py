"""Pooling, with PyTorch's padding."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax


@jax.custom_vjp
def max_pool_3x3_stride_2(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, ceil(H/2), ceil(W/2), C); the padding of 1 counts as -inf.

    Of equal values the first of a window has the gradient, as in PyTorch. XLA's CPU backend takes
    several times as long for windows as for slices, and for their gradient ten times.
    """
    return lax.platform_dependent(x, cpu=lambda x: _largest(x)[0], default=_largest_by_window)


def _forward(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    return max_pool_3x3_stride_2(x), x


def _backward(x: jax.Array, gradient: jax.Array) -> tuple[jax.Array]:
    def plain(x: jax.Array, gradient: jax.Array) -> jax.Array:
        return jax.vjp(_largest_by_window, x)[1](gradient)[0]

    return (lax.platform_dependent(x, gradient, cpu=_spread, default=plain),)


max_pool_3x3_stride_2.defvjp(_forward, _backward)


def _largest_by_window(x: jax.Array) -> jax.Array:
    return lax.reduce_window(
        x,
        -jnp.inf,
        lax.max,
        window_dimensions=(1, 3, 3, 1),
        window_strides=(1, 2, 2, 1),
        padding=((0, 0), (1, 1), (1, 1), (0, 0)),
    )


def _windows(x: jax.Array, padding: float) -> list[jax.Array]:
    """The nine pixels of every window, row by row, each (N, H', W', C)."""
    high, wide = (x.shape[1] + 1) // 2 * 2, (x.shape[2] + 1) // 2 * 2
    edges = ((0, 0), (1, 1), (1, 1), (0, 0))
    x = jnp.pad(x, edges, constant_values=padding)
    return [x[:, i : i + high - 1 : 2, j : j + wide - 1 : 2] for i in range(3) for j in range(3)]


def _largest(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Of every window the largest value, or NaN if there is one, and which it is, 0 to 8."""
    largest, *others = _windows(x, -jnp.inf)
    place = jnp.zeros(largest.shape, jnp.int8)
    for number, value in enumerate(others, start=1):
        larger = ~(value <= largest) & ~jnp.isnan(largest)
        largest = jnp.where(larger, value, largest)
        place = jnp.where(larger, jnp.int8(number), place)
    return largest, place


def _spread(x: jax.Array, gradient: jax.Array) -> jax.Array:
    """Every output's gradient, at the pixel that it is the value of.

    A pixel of row 2a + p and column 2b + q lies in the windows (a, b) to (a + p, b + q), each time
    in another place.
    """
    n, high, wide, channels = gradient.shape
    edges = ((0, 0), (0, 1), (0, 1), (0, 0))
    place, gradient = lax.optimization_barrier(
        (jnp.pad(_largest(x)[1], edges, constant_values=-1), jnp.pad(gradient, edges))
    )
    total = jnp.zeros((), gradient.dtype)
    for down in (0, 1):
        for right in (0, 1):
            rows, columns = np.arange(2) - 2 * down + 1, np.arange(2) - 2 * right + 1
            wanted = 3 * rows[:, None] + columns
            wanted[(rows < 0)[:, None] | (columns < 0)] = 9
            window = np.s_[:, down : down + high, None, right : right + wide, None]
            here = place[window] == wanted[None, :, None, :, None].astype(np.int8)
            total += jnp.where(here, gradient[window], 0)
    total = total.reshape(n, 2 * high, 2 * wide, channels)
    return total[:, : x.shape[1], : x.shape[2]]


def avg_pool(x: jax.Array, size: int) -> jax.Array:
    """(N, H, W, C) to (N, floor(H/size), floor(W/size), C); incomplete windows are left out."""
    height, width = x.shape[1:3]
    if min(height, width) < size:
        raise ValueError(
            f"a map of {height}x{width} is too small for {size}x{size} average pooling; "
            "use larger pictures"
        )
    height, width = height // size * size, width // size * size
    # A mean over two axes of windows is slow on CPUs.
    parts = [x[:, i:height:size, j:width:size] for i in range(size) for j in range(size)]
    return sum(parts[1:], start=parts[0]) / size**2


def global_avg_pool(x: jax.Array) -> jax.Array:
    """(N, H, W, C) to (N, C)."""
    return x.mean((1, 2))
