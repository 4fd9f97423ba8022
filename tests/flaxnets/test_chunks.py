"""Chunks against the function applied to the whole batch."""

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets.chunks import map_over_chunks, sum_over_chunks, update_over_chunks


@pytest.mark.parametrize("most", [0, 1, 2, 4, 5, 12, 100])
def test_as_if_at_once(most: int) -> None:
    images = jnp.arange(12 * 2 * 3, dtype=jnp.float32).reshape(12, 2, 3)
    weights = jnp.arange(12, dtype=jnp.float32)
    seen = []

    def doubled(images: jax.Array) -> jax.Array:
        seen.append(images.shape[0])
        return 2 * images.swapaxes(1, 2)

    np.testing.assert_array_equal(map_over_chunks(doubled, images, most), 2 * images.swapaxes(1, 2))
    assert max(seen) <= max(1, most)
    total = sum_over_chunks(lambda x, w: jnp.einsum("nij,n->ij", x, w), (images, weights), most)
    np.testing.assert_array_equal(total, jnp.einsum("nij,n->ij", images, weights))


@pytest.mark.parametrize("most", [0, 1, 2, 4, 5, 12, 100])
def test_an_update_as_if_at_once(most: int) -> None:
    target = jnp.arange(12 * 3, dtype=jnp.float32).reshape(12, 3)
    factors = jnp.arange(12, dtype=jnp.float32)

    def update(target: jax.Array, factors: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        product = target * factors[:, None]
        return target + product, {"sum": product.sum(0), "count": jnp.array(len(target))}

    result, sums = update_over_chunks(update, target, (factors,), most)
    expected, expected_sums = update(target, factors)
    np.testing.assert_array_equal(result, expected)
    np.testing.assert_array_equal(sums["sum"], expected_sums["sum"])
    assert sums["count"] == 12


def test_half_precision_is_summed_in_float32() -> None:
    pictures = jnp.ones((512, 1), jnp.bfloat16)
    _, total = update_over_chunks(lambda target: (target, target.sum(0)), pictures, (), 1)
    assert total.dtype == jnp.bfloat16
    assert float(total[0]) == 512  # a bfloat16 sum would stop growing at 256


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from flaxnets import convolution, kernel_gradient as module, winograd

assert jax.device_count() == 2
module.CHUNK_BYTES = winograd.CHUNK_BYTES = 2**14
mesh = jax.make_mesh((2,), ("data",))
shares = NamedSharding(mesh, PartitionSpec("data"))
generator = np.random.default_rng(0)
forms = {
    "taps": lambda x, g: module._by_taps(x, g, 3, 1),
    "tiles": winograd._both_ways,
    "rows": winograd._along_rows,
}
for form, channels, features in (
    ("taps", 5, 20), ("taps", 5, 6), ("tiles", 5, 6), ("rows", 5, 6)
):
    arrays = [generator.normal(size=(8, 6, 6, n)).astype(np.float32) for n in (channels, features)]
    gradient = forms[form]
    out = NamedSharding(mesh, PartitionSpec())
    compiled = jax.jit(gradient, in_shardings=shares, out_shardings=out).lower(*arrays).compile()
    text = compiled.as_text()
    assert text.count(" all-reduce(") == 1, text
    assert "all-gather" not in text and "collective-permute" not in text, text
    alone = jax.jit(gradient)(*(jax.device_put(x, jax.devices()[0]) for x in arrays))
    np.testing.assert_allclose(compiled(*jax.device_put(arrays, shares)), alone, atol=1e-4)

images = generator.normal(size=(8, 6, 6, 5)).astype(np.float32)
kernel = generator.normal(size=(3, 3, 5, 6)).astype(np.float32)
compiled = jax.jit(
    winograd.convolve, in_shardings=(shares, out), out_shardings=shares
).lower(images, kernel).compile()
text = compiled.as_text()
assert not any(f" {call}(" in text for call in ("all-reduce", "all-gather", "all-to-all")), text
assert "collective-permute" not in text, text
found = compiled(jax.device_put(images, shares), jax.device_put(kernel, out))
np.testing.assert_allclose(found, convolution.plain_conv2d(images, kernel, 1, 1, 1), atol=1e-4)
"""


def test_each_device_computes_its_own_pictures() -> None:
    """The devices exchange their sums once, and no pictures."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2"}
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=os.environ | settings, check=True)
