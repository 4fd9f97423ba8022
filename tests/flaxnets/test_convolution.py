"""The CPU form of the convolution's gradients against XLA's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from jax.sharding import Mesh, PartitionSpec

from flaxnets import convolution

# images (N, H, W, C), kernel (k, k, C / groups, O), stride, padding, groups
CASES = {
    "3x3": ((4, 8, 8, 3), (3, 3, 3, 5), 1, 1, 1),
    "3x3 odd picture, batch of 7": ((7, 9, 11, 4), (3, 3, 4, 3), 1, 1, 1),
    "3x3 without padding": ((2, 6, 7, 2), (3, 3, 2, 3), 1, 0, 1),
    "1x1, several chunks": ((48, 4, 3, 4), (1, 1, 4, 3), 1, 0, 1),
    "batch no chunk divides": ((37, 3, 3, 2), (3, 3, 2, 2), 1, 1, 1),
    "5x5": ((1, 5, 6, 2), (5, 5, 2, 2), 1, 2, 1),
    "3x3 stride 2": ((4, 8, 8, 3), (3, 3, 3, 5), 2, 1, 1),
    "3x3 stride 2, odd picture": ((4, 9, 7, 3), (3, 3, 3, 5), 2, 1, 1),
    "1x1 stride 2": ((2, 8, 6, 3), (1, 1, 3, 5), 2, 0, 1),
    "1x1 stride 2, odd picture": ((2, 9, 7, 3), (1, 1, 3, 5), 2, 0, 1),
    "stem 7x7 stride 2": ((2, 33, 30, 3), (7, 7, 3, 6), 2, 3, 1),
    "3x3 stride 3": ((3, 10, 11, 2), (3, 3, 2, 2), 3, 1, 1),
    "picture smaller than the stride": ((3, 1, 1, 2), (3, 3, 2, 2), 2, 1, 1),
    "groups": ((2, 6, 6, 4), (3, 3, 2, 6), 1, 1, 2),
}


def arrays(case, dtype, seed=0):
    shape, kernel_shape, *options = CASES[case]
    draw = np.random.default_rng(seed).standard_normal
    images, kernel = jnp.asarray(draw(shape), dtype), jnp.asarray(draw(kernel_shape), dtype)
    output = convolution.plain_conv2d(images, kernel, *options)
    return images, kernel, jnp.asarray(draw(output.shape), dtype), options


def gradients(images, kernel, gradient, options):
    return jax.vjp(lambda x, k: convolution.conv2d(x, k, *options), images, kernel)[1](gradient)


def plain_gradients(images, kernel, gradient, options):
    return jax.vjp(lambda x, k: convolution.plain_conv2d(x, k, *options), images, kernel)[1](
        gradient
    )


def worst(found, expected):
    return float(np.max(np.abs(found - expected)) / np.max(np.abs(expected)))


@pytest.mark.parametrize("case", CASES)
def test_gradients_in_float64(form, case):
    with jax.enable_x64(True):
        *inputs, options = arrays(case, jnp.float64)
        found = jax.jit(lambda *args: gradients(*args, options))(*inputs)
        for one, other in zip(found, plain_gradients(*inputs, options), strict=True):
            assert one.dtype == jnp.float64
            assert worst(one, other) < 1e-13


@pytest.mark.parametrize("case", CASES)
def test_value_in_float64(form, case):
    with jax.enable_x64(True):
        images, kernel, _, options = arrays(case, jnp.float64)
        expected = convolution.plain_conv2d(images, kernel, *options)
        assert worst(convolution.conv2d(images, kernel, *options), expected) < 1e-13


def test_an_empty_batch():
    for size, channels in ((3, 128), (3, 64), (3, 16), (1, 16)):
        images = jnp.zeros((0, 8, 8, channels))
        kernel = jnp.zeros((size, size, channels, channels))
        assert convolution.conv2d(images, kernel, 1, size // 2).shape == images.shape


@pytest.mark.parametrize("platform", ["cpu", "cuda"])
@pytest.mark.parametrize("channels", [16, 64, 128])
def test_a_symbolic_batch(platform, channels):
    """Whatever it turns out to be, it is computed as XLA does."""
    images, kernel = (jnp.ones((3, 8, 8, channels)), jnp.ones((3, 3, channels, channels)))
    batch = jax.ShapeDtypeStruct((*export.symbolic_shape("b"), 8, 8, channels), jnp.float32)
    step = jax.jit(lambda x, k: gradients(x, k, x, (1, 1, 1)))
    exported = export.export(step, platforms=[platform])(batch, kernel)
    assert exported.mlir_module().count("stablehlo.convolution") == 2
    if platform == "cpu":
        expected = plain_gradients(images, kernel, images, (1, 1, 1))
        for one, other in zip(exported.call(images, kernel), expected, strict=True):
            assert worst(one, other) < 1e-5


@pytest.mark.parametrize("channels", [16, 64, 128])
def test_within_shard_map(channels):
    images, kernel = (jnp.ones((2, 8, 8, channels)), jnp.ones((3, 3, channels, channels)))
    split, whole = PartitionSpec("data"), PartitionSpec()
    sharded = jax.shard_map(
        lambda x, k: convolution.conv2d(x, k, 1, 1),
        mesh=Mesh(np.array(jax.devices()[:1]), ("data",)),
        in_specs=(split, whole),
        out_specs=split,
        check_vma=False,
    )
    found = jax.jit(lambda x, k: jax.vjp(sharded, x, k)[1](x))(images, kernel)
    for one, other in zip(found, plain_gradients(images, kernel, images, (1, 1, 1)), strict=True):
        assert worst(one, other) < 1e-5


def test_kernels_that_are_not_square_are_refused():
    with pytest.raises(ValueError, match="square"):
        convolution.conv2d(jnp.zeros((1, 5, 5, 2)), jnp.zeros((3, 1, 2, 2)))


def test_twelve_features_are_computed_two_pixels_at_a_time(without_native):
    images, kernel = jnp.zeros((2, 8, 6, 48)), jnp.zeros((3, 3, 48, 12))
    assert convolution._pixels_to_merge(images, kernel, 1) == 2
    draw = np.random.default_rng(0).standard_normal
    with jax.enable_x64(True):
        images, kernel = jnp.asarray(draw(images.shape)), jnp.asarray(draw(kernel.shape))
        found = convolution.conv2d(images, kernel, 1, 1)
        assert worst(found, convolution.plain_conv2d(images, kernel, 1, 1, 1)) < 1e-13


def test_float32_kernel_gradient_is_as_exact_as_xlas(form):
    draw = np.random.default_rng(0).standard_normal
    images, gradient = draw((32, 16, 16, 8)), draw((32, 16, 16, 8))
    kernel = draw((3, 3, 8, 8))
    with jax.enable_x64(True):
        oracle = plain_gradients(*map(jnp.asarray, (images, kernel, gradient)), (1, 1, 1))[1]
        oracle = np.asarray(oracle)
    single = [jnp.asarray(a, jnp.float32) for a in (images, kernel, gradient)]
    ours = worst(gradients(*single, (1, 1, 1))[1], oracle)
    xlas = worst(plain_gradients(*single, (1, 1, 1))[1], oracle)
    assert ours < max(2 * xlas, 1e-6)


def test_bfloat16_accumulates_in_float32():
    images = jnp.ones((4, 32, 32, 1), jnp.bfloat16)
    kernel = jnp.ones((1, 1, 1, 1), jnp.bfloat16)
    gradient = jnp.ones((4, 32, 32, 1), jnp.bfloat16)
    found = gradients(images, kernel, gradient, (1, 0, 1))[1]
    assert found.dtype == jnp.bfloat16
    assert float(found[0, 0, 0, 0]) == 4096  # a bfloat16 sum would stop growing at 256


def test_gradient_of_the_gradient(form):
    with jax.enable_x64(True):
        images, kernel, gradient, options = arrays("3x3 stride 2", jnp.float64)

        def penalty(function):
            def squared(images, kernel):
                found = function(images, kernel, gradient, options)
                return sum(jnp.sum(jnp.square(g)) for g in found)

            return jax.grad(squared, argnums=(0, 1))(images, kernel)

        for one, other in zip(penalty(gradients), penalty(plain_gradients), strict=True):
            assert worst(one, other) < 1e-12


def test_per_example_gradients(form):
    images, kernel, gradient, options = arrays("3x3", jnp.float32)

    def one(image, gradient):
        return gradients(image[None], kernel, gradient[None], options)[1]

    found = jax.vmap(one)(images, gradient)
    assert found.shape == (4, *kernel.shape)
    together = gradients(images, kernel, gradient, options)[1]
    np.testing.assert_allclose(found.sum(0), together, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_plain_convolutions(without_native, platform):
    images, kernel, gradient, options = arrays("3x3 stride 2", jnp.float32)
    step = jax.jit(lambda x, k, g: gradients(x, k, g, options))
    text = export.export(step, platforms=[platform])(images, kernel, gradient).mlir_module()
    assert text.count("stablehlo.convolution") == 2
    assert "stablehlo.while" not in text
    assert "stablehlo.dot_general" not in text
    on_cpu = export.export(step, platforms=["cpu"])(images, kernel, gradient).mlir_module()
    assert "stablehlo.dot_general" in on_cpu
