"""Winograd's forms against XLA's own convolution and its automatic derivative."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from flaxnets import convolution, winograd

SHAPES = [(4, 4, 6, 5), (4, 5, 7, 5), (3, 1, 3, 5), (1, 2, 2, 3)]


def arrays(
    shape: tuple[int, ...], features: int, dtype: type = np.float64
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """An input, a kernel and a gradient at the output."""
    draw = np.random.default_rng(0).normal
    sizes = (shape, (3, 3, shape[3], features), (*shape[:3], features))
    images, kernel, gradient = (jnp.asarray(draw(size=size), dtype) for size in sizes)
    return images, kernel, gradient


def plain(images: jax.Array, kernel: jax.Array) -> jax.Array:
    return convolution.plain_conv2d(images, kernel, 1, 1, 1)


def plain_gradients(
    images: jax.Array, kernel: jax.Array, gradient: jax.Array
) -> tuple[jax.Array, jax.Array]:
    return jax.vjp(plain, images, kernel)[1](gradient)


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("shape", SHAPES)
def test_in_float64(monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], chunk: int) -> None:
    monkeypatch.setattr(winograd, "_pictures_a_chunk", lambda images, features: chunk)
    monkeypatch.setattr(winograd, "CHUNK_BYTES", (chunk - 1) * 2**13)  # of rows: 1, about 2, all
    with jax.enable_x64():
        images, kernel, gradient = arrays(shape, 6)
        found = winograd.convolve(images, kernel)
        np.testing.assert_allclose(found, plain(images, kernel), atol=1e-13)
        of_images, of_kernel = plain_gradients(images, kernel, gradient)
        found = winograd.images_gradient(gradient, kernel)
        np.testing.assert_allclose(found, of_images, atol=1e-13)
        for form in (winograd._both_ways, winograd._along_rows):
            np.testing.assert_allclose(form(images, gradient), of_kernel, atol=1e-12)


def test_the_kernels_gradient_has_the_form_that_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("_both_ways", "_along_rows"):
        monkeypatch.setattr(winograd, name, lambda images, gradient, name=name: name)

    def form(channels: int, features: int) -> str:
        return winograd.kernel_gradient(
            jnp.zeros((1, 2, 2, channels)), jnp.zeros((1, 2, 2, features))
        )

    assert form(128, 128) == "_both_ways"
    assert form(127, 128) == form(128, 127) == form(64, 64) == "_along_rows"


def test_float32_is_at_most_three_times_as_far_off_as_the_direct_form() -> None:
    with jax.enable_x64():
        images, kernel, gradient = arrays((8, 16, 16, 64), 64)
        exact = plain(images, kernel), *plain_gradients(images, kernel, gradient)
        exact = [np.asarray(x) for x in exact]
    images, kernel, gradient = arrays((8, 16, 16, 64), 64, np.float32)
    direct = plain(images, kernel), *plain_gradients(images, kernel, gradient)
    found = (
        winograd.convolve(images, kernel),
        winograd.images_gradient(gradient, kernel),
        winograd._both_ways(images, gradient),
        winograd._along_rows(images, gradient),
    )
    direct = *direct, direct[-1]
    exact = [*exact, exact[-1]]
    for ours, theirs, value in zip(found, direct, exact, strict=True):
        error, least = (np.sqrt(np.mean(np.square(x - value))) for x in (ours, theirs))
        assert 0 < error < 3 * least


@pytest.mark.parametrize(
    ("shape", "features", "options", "dtype", "expected"),
    [
        ((8, 8, 8, 64), 64, (3, 1, 1), np.float32, True),
        ((8, 8, 8, 64), 64, (3, 1, 1), np.float64, True),
        ((8, 7, 7, 128), 64, (3, 1, 1), np.float32, True),
        ((4, 8, 8, 128), 64, (3, 1, 1), np.float32, False),  # 64 tiles
        ((8, 8, 8, 96), 32, (3, 1, 1), np.float32, True),
        ((8, 8, 8, 32), 96, (3, 1, 1), np.float32, True),
        ((8, 8, 8, 32), 95, (3, 1, 1), np.float32, False),
        ((8, 8, 8, 31), 97, (3, 1, 1), np.float32, False),
        ((8, 8, 8, 64), 64, (5, 1, 2), np.float32, False),
        ((8, 8, 8, 64), 64, (3, 2, 1), np.float32, False),
        ((8, 8, 8, 64), 64, (3, 1, 0), np.float32, False),
        ((8, 8, 8, 64), 64, (3, 1, 1), jnp.bfloat16, False),
    ],
)
def test_suits_wide_layers_with_many_tiles(
    shape: tuple[int, ...],
    features: int,
    options: tuple[int, int, int],
    dtype: type,
    expected: bool,
) -> None:
    with jax.enable_x64():
        assert winograd.suits(jnp.zeros(shape, dtype), features, *options) is expected


def test_networks_use_it_on_a_cpu_only(without_native: None) -> None:
    images, kernel, gradient = arrays((8, 8, 8, 64), 64, np.float32)

    def step(images: jax.Array, kernel: jax.Array, gradient: jax.Array) -> object:
        y, transpose = jax.vjp(lambda x, k: convolution.conv2d(x, k, 1, 1), images, kernel)
        return y, transpose(gradient)

    def lowered(platform: str) -> str:
        exported = export.export(jax.jit(step), platforms=[platform])(images, kernel, gradient)
        return exported.mlir_module()

    on_gpu, on_cpu = lowered("cuda"), lowered("cpu")
    assert on_gpu.count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in on_gpu
    # Three products, and the kernel's transform for each of two.
    assert on_cpu.count("stablehlo.dot_general") == 5
    assert "stablehlo.convolution" not in on_cpu


def test_gradients_through_the_layer_and_theirs() -> None:
    with jax.enable_x64():
        images, kernel, gradient = arrays((2, 16, 16, 64), 64)

        def penalty(function):
            def squared(images, kernel):
                y, transpose = jax.vjp(function, images, kernel)
                return sum(jnp.sum(jnp.square(g)) for g in (y, *transpose(gradient)))

            return jax.grad(squared, argnums=(0, 1))(images, kernel)

        ours = penalty(lambda x, k: convolution.conv2d(x, k, 1, 1))
        for one, other in zip(ours, penalty(plain), strict=True):
            np.testing.assert_allclose(one, other, rtol=1e-10, atol=1e-6)
