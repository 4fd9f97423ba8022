"""Pooling against NumPy, and its gradient on a CPU against XLA's own."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from flaxnets import pooling

RNG = np.random.default_rng(0)


def normal(*shape: int) -> np.ndarray:
    return RNG.normal(size=shape).astype(np.float32)


def pool(x: np.ndarray, size: int, stride: int, padding: int, reduce: object) -> np.ndarray:
    pads = ((0, 0), (padding, padding), (padding, padding), (0, 0))
    padded = np.pad(x, pads, constant_values=-np.inf)
    height, width = ((length - size) // stride + 1 for length in padded.shape[1:3])
    out = np.empty((len(x), height, width, x.shape[-1]))
    for row, column in itertools.product(range(height), range(width)):
        top, left = row * stride, column * stride
        out[:, row, column] = reduce(padded[:, top : top + size, left : left + size], axis=(1, 2))
    return out


@pytest.mark.parametrize(("height", "width"), [(6, 8), (7, 5), (1, 2)])
def test_max_pool(height: int, width: int) -> None:
    x = normal(2, height, width, 3) - 10  # padding of 0 would win everywhere at the border
    y = pooling.max_pool_3x3_stride_2(x)
    np.testing.assert_array_equal(y, pool(x, 3, 2, 1, np.max))


@pytest.mark.parametrize(("size", "height", "width"), [(2, 4, 6), (2, 5, 7), (3, 7, 8), (1, 2, 3)])
def test_avg_pool(size: int, height: int, width: int) -> None:
    x = normal(2, height, width, 3)
    y = pooling.avg_pool(x, size)
    assert y.shape == (2, height // size, width // size, 3)
    np.testing.assert_allclose(y, pool(x, size, size, 0, np.mean), rtol=1e-5, atol=1e-6)


def test_global_avg_pool() -> None:
    x = normal(2, 3, 5, 4)
    np.testing.assert_allclose(pooling.global_avg_pool(x), x.mean((1, 2)), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(2, 6, 8, 3), (2, 7, 5, 3), (1, 1, 2, 4)])
def test_gradient_of_max_pool_with_ties(shape: tuple[int, ...]) -> None:
    x = jnp.maximum(np.round(normal(*shape)), 0)

    def gradient(function: object) -> jax.Array:
        y, transpose = jax.vjp(function, x)
        return transpose(jnp.cos(jnp.arange(y.size, dtype=y.dtype)).reshape(y.shape))[0]

    ours, plain = map(gradient, (pooling.max_pool_3x3_stride_2, pooling._largest_by_window))
    np.testing.assert_allclose(ours, plain, rtol=1e-6, atol=1e-6)


def test_max_pool_hands_on_nan() -> None:
    x = normal(1, 6, 6, 1)
    x[0, 2, 2] = np.nan
    y = np.array(pooling.max_pool_3x3_stride_2(jnp.asarray(x)))
    assert np.isnan(y[0, 1, 1]).all()
    assert np.isnan(y).sum() == 1


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_other_platforms_get_xlas_own_max_pool(platform: str) -> None:
    step = jax.jit(jax.grad(lambda x: pooling.max_pool_3x3_stride_2(x).sum()))
    text = export.export(step, platforms=[platform])(jnp.zeros((2, 8, 8, 3))).mlir_module()
    assert text.count("stablehlo.select_and_scatter") == 1
    assert "optimization_barrier" not in text
