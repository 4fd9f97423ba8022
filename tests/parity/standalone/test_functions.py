"""Pooling and ReLU by themselves."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch

from parity.standalone.functions import check_functions, flax_run, torch_run


def test_all_are_equal() -> None:
    found = list(check_functions(seed=0, quick=False))
    assert len(found) == 3 * 4 * 2 * 2
    assert all(comparison.ok for comparison in found)


@pytest.mark.parametrize("name", ["output", "gradient"])
def test_padding_with_zeros_would_show(name: str) -> None:
    def padded_with_zeros(x: jax.Array) -> jax.Array:
        padded = jnp.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)))
        window, step = (1, 3, 3, 1), (1, 2, 2, 1)
        return jax.lax.reduce_window(padded, -jnp.inf, jax.lax.max, window, step, "VALID")

    maps = -np.ones((1, 4, 4, 1))
    arriving = np.ones((1, 2, 2, 1))
    expected = torch_run(
        lambda x: torch.nn.functional.max_pool2d(x, 3, 2, 1), maps, arriving, torch.float64
    )
    found = flax_run(padded_with_zeros, maps, arriving, "float64")
    assert expected["output"].ravel().tolist() == [-1] * 4
    assert found["output"].ravel().tolist() == [0, 0, 0, -1]
    assert expected["gradient"].sum() == 4
    assert found["gradient"].sum() == 1
    assert not np.array_equal(found[name], expected[name])
