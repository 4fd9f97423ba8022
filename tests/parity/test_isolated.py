"""Layers by themselves."""

from collections.abc import Callable

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from torch import nn

from flaxnets.layers import BatchNorm
from parity.cases import find_case
from parity.checks import Pair, check_pair
from parity.comparison import Comparison
from parity.isolated import compare_layers, run_flax, run_torch
from parity.judge import Judge
from parity.naming import unchanged
from parity.pairs import make_pair
from parity.record import LayerCall, record_flax, record_torch

pytestmark = pytest.mark.usefixtures("quick_compilation")


def isolated(pair: Pair, spoil: Callable[[nnx.Module], None] | None = None) -> list[Comparison]:
    """In float64 and training mode, with a Flax network that ``spoil`` has changed."""
    oracle = record_torch(pair.torch, pair.batches, training=True)
    model = pair.flax("float64")
    calls = record_flax(model, pair.batches, dtype="float64", training=True).calls
    if spoil is not None:
        spoil(model)
    judge = Judge(pair.name, "float64", "train")
    return compare_layers(judge, pair.torch, model, oracle, calls, pair.rename)


def test_only_the_layer_that_is_wrong_is_out(tiny_pair: Callable[..., Pair]) -> None:
    def spoil(model: nnx.Module) -> None:
        model.bn1.epsilon = 1e-3

    found = isolated(tiny_pair(), spoil)
    assert [c.layer for c in found] == ["conv1", "bn1", "conv2", "bn2", "fc"]
    assert [c.layer for c in found if not c.ok] == ["bn1"]
    # The gradient of conv2.bias sums to zero before a batch norm: of it only rounding is left.
    assert all(c.error < 1e-12 for c in found if c.ok and c.layer != "conv2")


def test_a_layer_that_refuses_the_input_is_out_for_that_reason(
    tiny_pair: Callable[..., Pair],
) -> None:
    def spoil(model: nnx.Module) -> None:
        model.conv2.kernel = nnx.Param(jnp.ones((3, 3, 5, 6)))

    out = [c for c in isolated(tiny_pair(), spoil) if not c.ok]
    assert [c.layer for c in out] == ["conv2"]
    assert out[0].note.startswith("fed PyTorch's input: ")
    assert out[0].error == np.inf


def test_float32_is_held_against_float32_pytorch_on_the_same_input(
    tiny_pair: Callable[..., Pair],
) -> None:
    groups = check_pair(tiny_pair(), dtypes=["float32"], checks=["isolated layers"])
    found = [c for group in groups for c in group]
    assert len(found) == 10
    for comparison in found:
        assert comparison.ok
        assert comparison.reference is not None
        assert comparison.error < 1e-5 or comparison.layer == "conv2"
    assert max(comparison.error for comparison in found) > 1e-9


def test_a_densenets_norms_read_maps_that_were_normalised_for_them() -> None:
    """Gradients must pass through the batch statistics, although another layer computed them."""
    pair = make_pair(find_case("densenet, plain"))
    found = isolated(pair)
    norms = [c for c in found if "norm" in c.layer]
    assert len(norms) == 7
    assert all(c.error < 1e-13 for c in found)


@pytest.mark.parametrize("reads_maps", [False, True])
def test_a_norm_computes_the_same_however_it_reads(reads_maps: bool) -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 3)).astype(np.float32)
    call = LayerCall(("bn",), BatchNorm.__call__, reads_maps, {})
    run = run_flax(BatchNorm(3), call, x, np.square(x), unchanged)
    expected = run_torch(nn.BatchNorm2d(3), "bn", x, np.square(x))
    assert set(run.gradients) == {"bn.weight", "bn.bias"}
    np.testing.assert_allclose(run.output, expected.output, atol=1e-6)
    np.testing.assert_allclose(run.input_gradient, expected.input_gradient, atol=1e-6)
    for key, gradient in expected.gradients.items():
        np.testing.assert_allclose(run.gradients[key], gradient, rtol=1e-5)
    assert np.abs(run.input_gradient).max() > 0.1
