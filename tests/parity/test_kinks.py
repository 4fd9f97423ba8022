"""ReLU inputs so near to zero that rounding decides their sign."""

from collections.abc import Callable

import numpy as np
import pytest

from parity.budget import Error, relative_error
from parity.checks import Pair, check_pair, gradient_oracle, layer_budgets
from parity.comparison import first_divergence
from parity.kinks import Relu, Side, sides_of
from parity.record import Trace, record_torch

RELUS = {3: Relu("bn", after=False)}


def sides(oracle: list[float], run: list[float], worst: float = 1e-6) -> dict[int, Side]:
    layers = [{"bn": np.array([values])} for values in (oracle, run)]
    return sides_of(RELUS, *layers, {"bn": Error(0.0, worst)})


def test_a_run_on_the_other_side_of_a_kink_is_found() -> None:
    found = sides([1.0, 1e-8, -2.0], [1.0, -1e-8, -2.0])
    assert list(found) == [3]
    assert found[3].positive.tolist() == [[True, False, False]]
    assert found[3].tolerance == 2e-6


def test_a_run_on_the_same_side_of_all_kinks_needs_no_other_oracle() -> None:
    assert sides([1.0, 1e-8, -2.0], [1.1, 2e-8, -1.0]) == {}


def test_a_sign_that_differs_by_more_than_rounding_is_an_error_and_no_kink() -> None:
    assert sides([1.0, 1e-3, -2.0], [1.0, -1e-3, -2.0]) == {}


def test_only_what_is_near_zero_is_moved() -> None:
    side = Side(np.array([True, True, False, False]), tolerance=1e-6)
    assert side.differs(np.array([-1e-7, -1e-5, 1e-7, -1e-7])).tolist() == [
        *(True, False, True, False)
    ]


def test_sides_of_feature_maps_are_in_pytorchs_layout() -> None:
    oracle = np.full((1, 2, 3, 4), 1.0)
    run = oracle.copy()
    oracle[0, 1, 2, 3], run[0, 1, 2, 3] = 1e-9, -1e-9
    found = sides_of(RELUS, {"bn": oracle}, {"bn": run}, {"bn": Error(0.0, 1e-6)})
    assert found[3].positive.shape == (1, 4, 2, 3)
    assert np.argwhere(~found[3].positive).tolist() == [[0, 3, 1, 2]]


@pytest.mark.parametrize("value", [1e-9, -1e-9])
def test_a_gradient_is_held_against_the_oracle_on_its_own_side(
    value: float, tiny_pair: Callable[..., Pair]
) -> None:
    """One input of a ReLU has this value in the oracle, and the opposite in the run."""
    pair = tiny_pair()
    layer = record_torch(pair.torch, pair.batches, training=True).layers["bn1"]
    place = np.unravel_index(np.abs(layer).argmin(), layer.shape)
    bias = pair.torch.bn1.bias.data
    bias[place[-1]] += value - float(layer[place])
    oracle = record_torch(pair.torch, pair.batches, training=True)
    bias[place[-1]] -= 2 * value
    run = record_torch(pair.torch, pair.batches, training=True)
    bias[place[-1]] += 2 * value
    assert oracle.layers["bn1"][place] * value > 0 > run.layers["bn1"][place] * value

    def distance(a: Trace, b: Trace) -> float:
        return max(
            relative_error(gradient, b.parameter_gradients[key]).worst
            for key, gradient in a.parameter_gradients.items()
            if key != "conv2.bias"  # in front of batch norm it has no gradient
        )

    assert distance(run, oracle) > 1e-2
    allowed = layer_budgets(oracle, [oracle])
    held_against = gradient_oracle(pair, oracle, run, allowed, training=True)
    assert held_against.turned == 1
    assert distance(run, held_against) < 1e-7

    unmoved = gradient_oracle(pair, oracle, oracle, allowed, training=True)
    assert unmoved is oracle


def test_float32_is_within_budget(tiny_pair: Callable[..., Pair]) -> None:
    found = [c for group in check_pair(tiny_pair(), dtypes=["float32"]) for c in group]
    assert first_divergence(found) is None
    layers = [c for c in found if c.check == "layers"]
    assert len(layers) == 12
    for comparison in layers:
        assert comparison.reference is not None
        assert 0 < comparison.error < 1e-5
        assert comparison.budget > 4 * comparison.reference
