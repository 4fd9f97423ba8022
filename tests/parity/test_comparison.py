import numpy as np
import pytest

from parity.comparison import CHECKS, STAGES, Comparison, first_divergence


def failure(dtype: str, mode: str, check: str, layer: str = "layer") -> Comparison:
    return Comparison("net", check, dtype, mode, layer, error=1.0, budget=0.0)


@pytest.mark.parametrize("order", [1, -1])
def test_the_first_divergence_is_the_nearest_to_the_cause(order: int) -> None:
    ranked = [
        failure("", "", "parameters"),
        failure("float64", "eval", "isolated layers"),
        failure("float64", "eval", "layers"),
        failure("float64", "eval", "parameter gradients"),
        failure("float64", "train", "names"),
        failure("float64", "train", "statistics"),
        failure("float64", "train", "updates"),
        failure("float32", "eval", "logits"),
        failure("bfloat16", "eval", "export"),
    ]
    fine = Comparison("net", "names", "float64", "eval", "", error=0.0, budget=0.0)
    for index in range(len(ranked)):
        assert first_divergence([fine, *ranked[index:][::order]]) is ranked[index]
    assert first_divergence([fine]) is None


def test_gradients_of_layers_and_parameters_are_met_in_turn() -> None:
    met = [
        failure("float64", "eval", "parameter gradients", "b.weight"),
        failure("float64", "eval", "layer gradients", "a"),
        failure("float64", "eval", "input gradient"),
    ]
    assert first_divergence(met) is met[0]
    assert first_divergence(met[1:]) is met[1]


def test_every_check_has_its_place() -> None:
    places = [check for stage in STAGES for check in stage]
    assert sorted(places) == sorted(CHECKS)


@pytest.mark.parametrize(
    ("error", "budget", "ok", "ratio"),
    [
        (0.0, 0.0, True, 0.0),
        (1e-3, 2e-3, True, 0.5),
        (4e-3, 2e-3, False, 2.0),
        (1.0, 0.0, False, np.inf),
        (np.inf, 1.0, False, np.inf),
        (np.nan, 1.0, False, np.inf),
        (1.0, np.inf, False, np.inf),
        (np.inf, np.inf, False, np.inf),
        (0.0, np.nan, False, np.inf),
    ],
)
def test_what_is_out_of_budget_has_a_ratio_above_1(
    error: float, budget: float, ok: bool, ratio: float
) -> None:
    comparison = Comparison("net", "layers", "float64", "eval", "conv", error, budget)
    assert comparison.ok == ok
    assert comparison.ratio == ratio
