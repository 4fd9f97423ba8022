"""Functions in C++ against automatic differentiation of what XLA computes."""

import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets import dense_run, native, native_library
from flaxnets.convolution import plain_conv2d

needs_compiler = pytest.mark.skipif(not native_library.is_available(), reason="no C++ compiler")


def arrays(
    shape: tuple[int, ...], features: int, size: int, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """An input, and a gradient at the output."""
    draw = np.random.default_rng(0).standard_normal
    pictures, *lengths, _ = shape
    output = [(length + 2 * padding - size) // stride + 1 for length in lengths]
    return draw(shape), draw((pictures, *output, features))


def expected(images: jax.Array, gradient: jax.Array, *options: int) -> jax.Array:
    size, stride, padding = options
    kernel = jnp.zeros((size, size, images.shape[-1], gradient.shape[-1]), images.dtype)
    return jax.vjp(lambda k: plain_conv2d(images, k, stride, padding), kernel)[1](gradient)[0]


# images (N, H, W, C), features, size, stride, padding
CASES = {
    "few of both": ((3, 6, 5, 2), 3, 3, 1, 1),
    "many features": ((3, 6, 5, 2), 70, 3, 1, 1),
    "many channels": ((3, 6, 5, 40), 12, 3, 1, 1),
    "many of both": ((2, 5, 6, 70), 130, 3, 1, 1),
    "features that threads share": ((1, 4, 4, 3), 401, 1, 1, 0),
    "pictures that threads share": ((7, 32, 32, 3), 5, 3, 1, 1),
    "strips of pictures": ((2, 61, 33, 5), 6, 3, 1, 1),
    "strips of strided pictures": ((2, 61, 66, 4), 17, 7, 2, 3),
    "rows of more than a strip": ((2, 3, 600, 2), 3, 3, 1, 1),
    "several pictures at a time": ((33, 5, 7, 9), 10, 3, 1, 1),
    "stride 2, odd picture": ((4, 9, 7, 3), 5, 3, 2, 1),
    "stride 3": ((3, 10, 11, 2), 2, 3, 3, 1),
    "stride of more than the kernel": ((3, 10, 11, 20), 33, 1, 2, 0),
    "even kernel": ((3, 6, 5, 2), 7, 2, 1, 0),
    "much padding": ((2, 4, 5, 3), 6, 3, 1, 4),
    "one pixel": ((3, 1, 1, 2), 2, 3, 2, 1),
}


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_value_in_float64(case: str) -> None:
    shape, features, *options = CASES[case]
    with jax.enable_x64():
        images, gradient = map(jnp.asarray, arrays(shape, features, *options))
        found = jax.jit(lambda x, g: native.kernel_gradient(x, g, *options))(images, gradient)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected(images, gradient, *options), atol=1e-11)


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_float32_is_nearly_as_exact_as_xlas(case: str) -> None:
    shape, features, *options = CASES[case]
    double = arrays(shape, features, *options)
    single = [jnp.asarray(x, jnp.float32) for x in double]
    found, other = native.kernel_gradient(*single, *options), expected(*single, *options)
    with jax.enable_x64():
        oracle = np.asarray(expected(*map(jnp.asarray, double), *options))
    scale = np.abs(oracle).max()
    worst, xlas = (np.abs(x - oracle).max() / scale for x in (found, other))
    assert found.dtype == jnp.float32
    assert worst < max(2 * xlas, 1e-6)


@needs_compiler
def test_a_long_sum_keeps_its_digits() -> None:
    """One float32 sum of 2^20 tenths is off by 4 %; in sums of 512 each 2,560 roundings add up."""
    images = jnp.full((16, 256, 256, 1), 0.1, jnp.float32)
    found = native.kernel_gradient(images, jnp.ones_like(images), 1, 1, 0)
    np.testing.assert_allclose(found, np.float32(0.1) * 2**20, rtol=2560 * 2**-24)


@needs_compiler
def test_numbers_that_are_not_finite_stay() -> None:
    images = jnp.zeros((1, 4, 4, 2)).at[0, 1, 1, 0].set(jnp.nan)
    found = native.kernel_gradient(images, jnp.ones((1, 4, 4, 3)), 3, 1, 1)
    assert jnp.isnan(found[:, :, 0]).all()
    assert jnp.isfinite(found[:, :, 1]).all()


@needs_compiler
def test_batches_of_batches() -> None:
    images, gradient = map(jnp.asarray, arrays((6, 5, 4, 2), 3, 3, 1, 1))
    pairs = [x.reshape(3, 2, *x.shape[1:]) for x in (images, gradient)]

    def one(x: jax.Array, g: jax.Array) -> jax.Array:
        return native.kernel_gradient(x, g, 3, 1, 1)

    together = jax.vmap(one)(*pairs)
    alone = jnp.stack([one(x, g) for x, g in zip(*pairs, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    twice = jax.vmap(lambda g: jax.vmap(one, (0, None))(pairs[0], g))(pairs[1])
    assert twice.shape == (3, 3, 3, 3, 2, 3)
    np.testing.assert_allclose(twice[2, 1], one(pairs[0][1], pairs[1][2]), atol=1e-5)


# images (N, H, W, C), features
NARROW = {
    "few of both": ((3, 6, 5, 2), 3),
    "a residual block": ((2, 32, 32, 16), 16),
    "a dense layer": ((3, 9, 8, 48), 12),
    "the most channels": ((2, 7, 17, 64), 12),
    "two vectors of features": ((2, 5, 33, 7), 21),
    "bands of one picture": ((1, 11, 19, 5), 16),
    "one row": ((1, 1, 25, 4), 9),
    "one pixel": ((3, 1, 1, 3), 16),
}


@needs_compiler
@pytest.mark.parametrize("case", NARROW)
def test_narrow_convolutions(case: str) -> None:
    shape, features = NARROW[case]
    draw = np.random.default_rng(0).standard_normal
    images, kernel = draw(shape), draw((3, 3, shape[-1], features))
    with jax.enable_x64():
        exact = np.asarray(plain_conv2d(jnp.asarray(images), jnp.asarray(kernel), 1, 1))
        found = jax.jit(native.convolve)(images, kernel)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, exact, rtol=1e-12, atol=1e-11)
    single = [jnp.asarray(x, jnp.float32) for x in (images, kernel)]
    found, other = native.convolve(*single), plain_conv2d(*single, 1, 1)
    scale = np.abs(exact).max()
    worst, xlas = (np.abs(x - exact).max() / scale for x in (found, other))
    assert found.dtype == jnp.float32
    assert worst < max(2 * xlas, 1e-6)


@needs_compiler
def test_what_is_not_a_number_goes_through_a_narrow_convolution() -> None:
    images = jnp.zeros((1, 5, 5, 3)).at[0, 1, 2, 1].set(jnp.nan)
    found = jnp.isnan(native.convolve(images, jnp.ones((3, 3, 3, 12))))
    assert found[0, :3, 1:4].all()
    assert found.sum() == 9 * 12


@needs_compiler
def test_batches_of_narrow_convolutions() -> None:
    draw = np.random.default_rng(0).standard_normal
    images, kernels = jnp.float32(draw((2, 4, 6, 5, 3))), jnp.float32(draw((2, 3, 3, 3, 12)))
    together = jax.vmap(native.convolve)(images, kernels)
    for index in range(2):
        alone = native.convolve(images[index], kernels[index])
        np.testing.assert_allclose(together[index], alone, atol=1e-5)


def by_definition(x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    pixels = x.astype(np.longdouble).reshape(-1, x.shape[-1])
    return pixels.mean(axis=0), pixels.var(axis=0)


# N, H, W, C
SUMS = {
    "few channels": (3, 6, 5, 2),
    "a vector": (4, 8, 8, 16),
    "a dense layer's": (2, 16, 16, 12),
    "many channels": (2, 3, 5, 1030),
    "odd numbers": (3, 7, 11, 37),
    "one pixel": (1, 1, 1, 24),
    "many pixels": (4, 64, 64, 3),
}


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", SUMS)
def test_channel_moments(case: str, dtype: Any) -> None:
    """In float32 as exact as the result can be written."""
    x = (np.random.default_rng(0).standard_normal(SUMS[case]) * 3 + 100).astype(dtype)
    mean, var = by_definition(x)
    with jax.enable_x64():
        found = [np.asarray(y) for y in jax.jit(native.channel_moments)(jnp.asarray(x))]
    assert {y.dtype for y in found} == {np.dtype(dtype)}
    epsilon = np.finfo(dtype).eps
    np.testing.assert_allclose(found[0], mean, rtol=epsilon)
    exact = found[0].astype(np.longdouble) + found[1]
    np.testing.assert_allclose(exact, mean, rtol=epsilon if dtype == np.float64 else 1e-9)
    np.testing.assert_allclose(found[2], var, rtol=64 * epsilon, atol=1e-30)


@needs_compiler
def test_a_channel_that_hardly_varies() -> None:
    """By one rounding of its numbers, each way."""
    tick = np.spacing(np.float32(1000))
    x = np.full((2, 8, 8, 3), 1000, np.float32)
    x[:, ::2, :, 1] += tick
    x[:, :, :, 2] += 0.1
    mean, off, var = native.channel_moments(jnp.asarray(x))
    np.testing.assert_allclose(var, [0, (tick / 2) ** 2, 0], rtol=1e-6, atol=1e-20)
    assert mean[1] + np.float64(off[1]) == 1000 + tick / 2


@needs_compiler
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("case", SUMS)
def test_channel_means(case: str, dtype: Any) -> None:
    draw = np.random.default_rng(0).standard_normal
    a, b = (draw(SUMS[case]).astype(dtype) for _ in range(2))
    with jax.enable_x64():
        mean, product_mean = jax.jit(native.channel_means)(jnp.asarray(a), jnp.asarray(b))
    for found, numbers in ((mean, a), (product_mean, a.astype(np.longdouble) * b)):
        assert found.dtype == dtype
        size = float(np.abs(numbers).mean())
        np.testing.assert_allclose(
            found, by_definition(np.asarray(numbers))[0], atol=8 * np.finfo(dtype).eps * size
        )


@needs_compiler
def test_batches_of_channel_sums() -> None:
    x = jnp.float32(np.random.default_rng(0).standard_normal((2, 3, 4, 4, 5)))
    for function in (native.channel_moments, lambda x: native.channel_means(x, x + 1)):
        together = jax.vmap(function)(x)
        for index in range(2):
            for a, b in zip(together, function(x[index]), strict=True):
                np.testing.assert_allclose(a[index], b, atol=1e-6)


# N, H, W, channels, features, channels in front that are not read, and behind
EXPANSIONS = {
    "few of all": (1, 2, 3, 4, 5, 0, 0),
    "a dense layer": (3, 8, 8, 60, 48, 0, 0),
    "channels that are not read": (2, 8, 9, 70, 48, 13, 24),
    "nothing that is read": (1, 3, 3, 8, 6, 8, 0),
    "slabs of channels": (2, 5, 5, 601, 40, 0, 37),
    "many features": (1, 7, 7, 33, 256, 2, 0),
    "blocks of pixels": (7, 16, 17, 20, 12, 0, 8),
    "one pixel": (1, 1, 1, 24, 16, 0, 12),
}


def expansion(case: str, centered: bool, seed: int = 0) -> tuple[np.ndarray, ...]:
    """A total, maps, a gradient, and an expansion's mean, scale, bias and kernel."""
    *shape, channels, features, before, behind = EXPANSIONS[case]
    draw = np.random.default_rng(seed).standard_normal
    total, maps, gradient = (draw((*shape, n)) for n in (channels, channels, features))
    mean = draw(channels) if centered else np.zeros(channels)
    scale, bias, kernel = draw(channels), draw(channels), draw((channels, features))
    for x in (scale, bias, kernel):
        x[:before], x[channels - behind :] = 0, 0
    return total, maps, gradient, mean, scale, bias, kernel


def by_xla(total: jax.Array, maps: jax.Array, gradient: jax.Array, *rest: jax.Array) -> Any:
    """What an expansion is, the new total, and all its gradients."""
    variables = dense_run.Expansion(*rest)
    output = dense_run._expand(maps, variables)
    total, gradients = dense_run._add_gradients(total, maps, gradient, variables)
    return output, total, gradients.scale, gradients.bias, gradients.kernel


def in_cpp(total: jax.Array, maps: jax.Array, gradient: jax.Array, *rest: jax.Array) -> Any:
    gradients = native.add_expansion_gradients(total, maps, gradient, *rest)
    return native.expand(maps, *rest), *gradients


@needs_compiler
@pytest.mark.parametrize("centered", [False, True])
@pytest.mark.parametrize("case", EXPANSIONS)
def test_expansions_in_float64(case: str, centered: bool) -> None:
    with jax.enable_x64():
        arrays = [jnp.asarray(x) for x in expansion(case, centered)]
        found, wanted = jax.jit(in_cpp)(*arrays), by_xla(*arrays)
        for a, b in zip(found, wanted, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-12, atol=1e-11)


@needs_compiler
@pytest.mark.parametrize("case", EXPANSIONS)
def test_expansions_in_float32_are_nearly_as_exact_as_xlas(case: str) -> None:
    # One rounding may take a number over ReLU's kink: such pixels have no gradient here.
    double = expansion(case, centered=False)
    before = double[1] * double[4] + double[5]
    double[1][np.abs(before) < 1e-4] += 0.01
    single = [jnp.asarray(x, jnp.float32) for x in double]
    with jax.enable_x64():
        oracle = [np.asarray(x) for x in by_xla(*(jnp.asarray(x) for x in double))]
    for found, other, exact in zip(in_cpp(*single), by_xla(*single), oracle, strict=True):
        assert found.dtype == jnp.float32
        scale = max(np.abs(exact).max(), 1e-30)
        worst, xlas = (np.abs(x - exact).max() / scale for x in (found, other))
        assert worst < max(2 * xlas, 1e-6)


@needs_compiler
def test_what_is_not_a_number_goes_through_an_expansion() -> None:
    _, maps, _, *rest = map(jnp.float32, expansion("a dense layer", centered=False))
    maps = maps.at[1, 2, 3, 4].set(jnp.nan)
    found = native.expand(maps, *rest)
    assert jnp.isnan(found[1, 2, 3]).all()
    assert jnp.isnan(found).sum() == found.shape[-1]


@needs_compiler
def test_a_donated_total_is_added_to_in_place() -> None:
    arrays = [jnp.float32(x) for x in expansion("blocks of pixels", centered=False)]
    compiled = jax.jit(native.add_expansion_gradients, donate_argnums=0).lower(*arrays).compile()
    memory = compiled.memory_analysis()
    assert memory.alias_size_in_bytes >= arrays[0].nbytes
    assert memory.temp_size_in_bytes < arrays[0].nbytes / 2


@needs_compiler
def test_batches_of_expansions() -> None:
    pairs = [expansion("a dense layer", centered=True, seed=seed) for seed in (0, 1)]
    stacked = [jnp.stack([jnp.float32(x) for x in each]) for each in zip(*pairs, strict=True)]
    together = jax.vmap(in_cpp)(*stacked)
    for index in range(2):
        alone = in_cpp(*(x[index] for x in stacked))
        for a, b in zip(together, alone, strict=True):
            np.testing.assert_allclose(a[index], b, rtol=1e-5, atol=1e-4)


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from flaxnets import dense_run, native, native_library

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("data",))
split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
draw = np.random.default_rng(0).standard_normal
arrays = [draw((8, 6, 6, n)).astype(np.float32) for n in (5, 20)]
function = jax.jit(
    lambda x, g: native.kernel_gradient(x, g, 3, 1, 1), in_shardings=split, out_shardings=whole
)
compiled = function.lower(*arrays).compile()
text = compiled.as_text()
assert text.count(" all-reduce(") == 1, text
assert "all-gather" not in text and "collective-permute" not in text, text
assert text.count('custom_call_target="flaxnets_kernel_gradients_float32') == 1, text
alone = native.kernel_gradient(*(jax.device_put(x, jax.devices()[0]) for x in arrays), 3, 1, 1)
np.testing.assert_allclose(compiled(*jax.device_put(arrays, split)), alone, atol=1e-4)

shapes = [*([(4, 6, 6, n) for n in (20, 20, 8)]), (20,), (20,), (20,), (20, 8)]
arrays = [draw(shape).astype(np.float32) for shape in shapes]

def both(*arrays):
    return native.add_expansion_gradients(*arrays), native.expand(*arrays[1:2], *arrays[3:])

shardings = (split,) * 3 + (whole,) * 4
results = (split, whole, whole, whole), split
compiled = jax.jit(both, in_shardings=shardings, out_shardings=results).lower(*arrays).compile()
text = compiled.as_text()
assert "all-gather" not in text and "collective-permute" not in text, text
assert text.count('custom_call_target="flaxnets_expansion') == 2, text
alone = both(*(jax.device_put(x, jax.devices()[0]) for x in arrays))
for a, b in zip(*map(jax.tree.leaves, (compiled(*arrays), alone)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)

x, kernel = draw((8, 6, 6, 5)).astype(np.float32), draw((3, 3, 5, 12)).astype(np.float32)
x[4:] += 7  # the devices' means differ

def sums(x, kernel):
    return native.convolve(x, kernel), native.channel_moments(x), native.channel_means(x, x * x)

results = split, (whole,) * 3, (whole,) * 2
compiled = jax.jit(sums, in_shardings=(split, whole), out_shardings=results).lower(x, kernel)
compiled = compiled.compile()
text = compiled.as_text()
assert "all-gather" not in text and "collective-permute" not in text, text
assert text.count('custom_call_target="flaxnets_') == 3, text
alone = sums(*(jax.device_put(x, jax.devices()[0]) for x in (x, kernel)))
for a, b in zip(*map(jax.tree.leaves, (compiled(x, kernel), alone)), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
"""


@needs_compiler
@pytest.mark.parametrize("flags", ["", "--xla_cpu_multi_thread_eigen=false"])
def test_each_device_computes_its_own_pictures(flags: str) -> None:
    """The devices exchange their sums once, and no pictures; with XLA's threads and without."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=os.environ | settings, check=True)


def test_half_precision_and_empty_batches_are_left_to_xla() -> None:
    assert not native.suits(jnp.zeros((1, 2, 2, 1), jnp.bfloat16))
    assert not native.suits(jnp.zeros((0, 2, 2, 1)))
    assert not native.suits(jnp.zeros((1, 2, 2, 1)), jnp.zeros((1,), jnp.bfloat16))
