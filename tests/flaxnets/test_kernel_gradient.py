"""The gradient of a kernel against automatic differentiation of XLA's own convolution."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets import kernel_gradient as module
from flaxnets.convolution import plain_conv2d


def arrays(
    shape: tuple[int, ...], features: int, size: int, padding: int
) -> tuple[jax.Array, jax.Array]:
    """An input and a gradient at the output, in float64."""
    generator = np.random.default_rng(0)
    pictures, height, width, _ = shape
    grown = 2 * padding - size + 1
    output = pictures, height + grown, width + grown, features
    return jnp.asarray(generator.normal(size=shape)), jnp.asarray(generator.normal(size=output))


def expected(images: jax.Array, gradient: jax.Array, size: int, padding: int) -> jax.Array:
    zeros = jnp.zeros((size, size, images.shape[-1], gradient.shape[-1]), images.dtype)
    return jax.vjp(lambda k: plain_conv2d(images, k, 1, padding, 1), zeros)[1](gradient)[0]


@pytest.mark.parametrize("chunk_bytes", [1, 2**12, 2**30])
@pytest.mark.parametrize(
    ("shape", "features", "size", "padding"),
    [
        ((4, 5, 7, 3), 4, 3, 1),  # narrow: all taps in one product
        ((4, 5, 7, 3), 20, 3, 1),  # three taps at a time
        ((4, 5, 7, 3), 20, 3, 0),
        ((4, 5, 7, 7), 20, 3, 1),
        ((4, 5, 7, 7), 20, 3, 0),
        ((4, 5, 7, 3), 20, 3, 2),
        ((3, 6, 6, 2), 16, 5, 2),
        ((3, 6, 6, 2), 5, 5, 1),
        ((3, 6, 5, 2), 18, 2, 0),
        ((3, 6, 5, 2), 7, 2, 1),
        ((6, 4, 3, 8), 9, 1, 0),
        ((1, 9, 9, 2), 16, 7, 3),
    ],
)
def test_taps(
    monkeypatch: pytest.MonkeyPatch,
    shape: tuple[int, ...],
    features: int,
    size: int,
    padding: int,
    chunk_bytes: int,
) -> None:
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk_bytes)
    with jax.enable_x64():
        images, gradient = arrays(shape, features, size, padding)
        found = module.kernel_gradient(images, gradient, size, padding)
        np.testing.assert_allclose(found, expected(images, gradient, size, padding), atol=1e-12)
