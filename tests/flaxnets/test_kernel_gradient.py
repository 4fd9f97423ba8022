"""The gradient of a kernel against automatic differentiation of XLA's own convolution."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets import kernel_gradient as module
from flaxnets.convolution import _plain


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
    return jax.vjp(lambda k: _plain(images, k, 1, padding, 1), zeros)[1](gradient)[0]


@pytest.mark.parametrize("chunk_bytes", [1, 2**12, 2**30])
@pytest.mark.parametrize(
    ("shape", "features", "size", "padding"),
    [
        ((4, 5, 7, 3), 4, 3, 1),  # narrow: all taps in one product
        ((4, 5, 7, 3), 20, 3, 1),
        ((4, 5, 7, 3), 20, 3, 0),
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


@pytest.mark.parametrize("chunk_bytes", [1, 2**30])
@pytest.mark.parametrize("shape", [(4, 4, 6, 5), (4, 5, 7, 5), (3, 1, 3, 5)])
def test_tiles(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], chunk_bytes: int) -> None:
    monkeypatch.setattr(module, "TILE_CHUNK_BYTES", chunk_bytes)
    with jax.enable_x64():
        images, gradient = arrays(shape, 6, 3, 1)
        found = module._by_tiles(images, gradient)
        np.testing.assert_allclose(found, expected(images, gradient, 3, 1), atol=1e-12)


def test_tiles_are_for_wide_layers_with_many_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    used = []

    def by_tiles(images: jax.Array, gradient: jax.Array) -> jax.Array:
        used.append(images.shape)
        return jnp.zeros(())

    monkeypatch.setattr(module, "_by_tiles", by_tiles)
    for shape, features, size in [
        ((8, 8, 8, 128), 128, 3),
        ((2, 8, 8, 128), 128, 3),  # 32 tiles
        ((8, 8, 8, 64), 128, 3),
        ((8, 8, 8, 128), 64, 3),
        ((8, 8, 8, 128), 128, 5),
    ]:
        module.kernel_gradient(*arrays(shape, features, size, 1), size, 1)
    assert used == [(8, 8, 8, 128)]


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from flaxnets import kernel_gradient as module

assert jax.device_count() == 2
module.CHUNK_BYTES = module.TILE_CHUNK_BYTES = 2**15
mesh = jax.make_mesh((2,), ("data",))
shares = NamedSharding(mesh, PartitionSpec("data"))
generator = np.random.default_rng(0)
for form, channels, features in (("taps", 5, 20), ("taps", 5, 6), ("tiles", 5, 6)):
    arrays = [generator.normal(size=(8, 6, 6, n)).astype(np.float32) for n in (channels, features)]
    def gradient(x, g):
        return module._by_taps(x, g, 3, 1) if form == "taps" else module._by_tiles(x, g)
    out = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(gradient, in_shardings=shares, out_shardings=out).lower(*arrays).compile()
    text = compiled.as_text()
    assert text.count(" all-reduce(") == 1, text
    assert "all-gather" not in text and "collective-permute" not in text, text
    alone = jax.jit(gradient)(*(jax.device_put(x, jax.devices()[0]) for x in arrays))
    np.testing.assert_allclose(compiled(*jax.device_put(arrays, shares)), alone, atol=1e-4)
"""


def test_each_device_sums_over_its_own_pictures() -> None:
    """The devices exchange their sums once, and no pictures."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=os.environ | settings, check=True)
