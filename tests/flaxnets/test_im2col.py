"""Products over neighbourhoods against XLA's own convolution and its automatic derivatives."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from flaxnets import convolution, im2col

# images (N, H, W, C), features, kernel size, stride, padding
CASES = {
    "3x3": ((4, 5, 7, 3), 5, 3, 1, 1),
    "3x3 stride 2": ((4, 8, 6, 3), 5, 3, 2, 1),
    "3x3 stride 2, odd picture": ((6, 9, 7, 3), 5, 3, 2, 1),
    "7x7 stride 2": ((2, 17, 14, 3), 4, 7, 2, 3),
    "stride above the size": ((3, 10, 11, 2), 2, 2, 3, 1),
    "padding above the size": ((2, 4, 5, 2), 3, 2, 1, 3),
    "1x1 stride 2": ((2, 5, 4, 3), 4, 1, 2, 0),
}


def arrays(case: str, dtype: type = np.float64) -> tuple[jax.Array, jax.Array, jax.Array, int, int]:
    """An input, a kernel, a gradient at the output, the stride and the padding."""
    shape, features, size, stride, padding = CASES[case]
    draw = np.random.default_rng(0).normal
    images = jnp.asarray(draw(size=shape), dtype)
    kernel = jnp.asarray(draw(size=(size, size, shape[3], features)), dtype)
    output = convolution.plain_conv2d(images, kernel, stride, padding, 1)
    return images, kernel, jnp.asarray(draw(size=output.shape), dtype), stride, padding


@pytest.mark.parametrize("chunk", [1, 2, 100])
@pytest.mark.parametrize("case", CASES)
def test_in_float64(monkeypatch: pytest.MonkeyPatch, case: str, chunk: int) -> None:
    monkeypatch.setattr(im2col, "_pictures_a_chunk", lambda pixels, kernel: chunk)
    with jax.enable_x64():
        images, kernel, gradient, *options = arrays(case)
        value, transpose = jax.vjp(
            lambda x, k: convolution.plain_conv2d(x, k, *options, 1), images, kernel
        )
        of_images, of_kernel = transpose(gradient)
        found = im2col.convolve(images, kernel, *options)
        np.testing.assert_allclose(found, value, atol=1e-12)
        found = im2col.images_gradient(images, kernel, gradient, *options)
        np.testing.assert_allclose(found, of_images, atol=1e-12)
        found = im2col.kernel_gradient(images, kernel, gradient, *options)
        np.testing.assert_allclose(found, of_kernel, atol=1e-12)


def test_bfloat16_accumulates_in_float32() -> None:
    images, kernel = jnp.ones((4, 32, 32, 1)), jnp.ones((3, 3, 1, 300))
    gradient = jnp.ones((4, 16, 16, 300))
    images, kernel, gradient = (x.astype(jnp.bfloat16) for x in (images, kernel, gradient))
    found = im2col.kernel_gradient(images, kernel, gradient, 2, 1)
    assert found.dtype == jnp.float32
    assert float(found[1, 1, 0, 0]) == 1024  # a bfloat16 sum would stop growing at 256
    found = im2col.images_gradient(images, kernel, gradient, 2, 1)
    assert found.dtype == jnp.bfloat16
    assert float(found[0, 1, 1, 0]) == 1200


@pytest.mark.parametrize(
    ("shape", "features", "size", "dtype", "expected"),
    [
        ((2, 7, 7, 128), 128, 3, np.float32, True),
        ((2, 7, 7, 128), 128, 3, np.float64, True),
        ((2, 7, 7, 127), 128, 3, np.float32, False),
        ((2, 7, 7, 128), 127, 3, np.float32, False),
        ((2, 7, 7, 128), 128, 1, np.float32, False),
        ((2, 7, 7, 128), 128, 3, jnp.bfloat16, False),
    ],
)
def test_suits_wide_layers(
    shape: tuple[int, ...], features: int, size: int, dtype: type, expected: bool
) -> None:
    with jax.enable_x64():
        assert im2col.suits(jnp.zeros(shape, dtype), features, size) is expected


@pytest.mark.parametrize("stride", [1, 2])
def test_networks_use_it_on_a_cpu_only(without_native: None, stride: int) -> None:
    images, kernel = jnp.zeros((2, 8, 8, 128)), jnp.zeros((3, 3, 128, 128))

    def step(images: jax.Array, kernel: jax.Array) -> object:
        y, transpose = jax.vjp(lambda x, k: convolution.conv2d(x, k, stride, 1), images, kernel)
        return y, transpose(y)

    def lowered(platform: str) -> str:
        exported = export.export(jax.jit(step), platforms=[platform])(images, kernel)
        return exported.mlir_module()

    on_gpu, on_cpu = lowered("cuda"), lowered("cpu")
    assert on_gpu.count("stablehlo.convolution") == 3
    assert "stablehlo.dot_general" not in on_gpu
    assert on_cpu.count("stablehlo.dot_general") == 3
    assert "stablehlo.convolution" not in on_cpu
