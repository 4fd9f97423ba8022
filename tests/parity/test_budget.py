import numpy as np
import pytest

from parity.budget import Error, float32_budget, float64_budget, relative_error


def test_relative_error_measures_the_norm_and_the_worst_element() -> None:
    error = relative_error(np.array([3.0, 4.5]), np.array([3.0, 4.0]))
    assert error.norm == pytest.approx(0.5 / 5)
    assert error.worst == pytest.approx(0.5 / 4)


def test_equal_arrays_have_no_error_even_if_they_are_zero() -> None:
    assert relative_error(np.zeros(3), np.zeros(3)) == Error(0.0, 0.0)


def test_anything_is_infinitely_far_from_zero_without_a_scale() -> None:
    assert relative_error(np.array([1e-30]), np.zeros(1)) == Error(np.inf, np.inf)


def test_a_scale_is_what_elements_count_as_at_least() -> None:
    error = relative_error(np.full(4, 1e-17), np.zeros(4), scale=1e-4)
    assert error.norm == pytest.approx(1e-13)
    assert error.worst == pytest.approx(1e-13)
    assert relative_error(np.array([3.0]), np.array([2.0]), scale=1.0).worst == 0.5


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_value_that_is_not_finite_is_infinitely_far(value: float) -> None:
    assert relative_error(np.array([1.0, value]), np.ones(2)) == Error(np.inf, np.inf)


def test_another_shape_is_infinitely_far() -> None:
    assert relative_error(np.ones((2, 1)), np.ones((1, 2))) == Error(np.inf, np.inf)


def test_float32_values_are_compared_in_float64() -> None:
    third = np.array([1 / 3])
    error = relative_error(third.astype(np.float32), third)
    assert 1e-9 < error.worst < 6e-8


def test_budgets() -> None:
    assert float64_budget() == Error(1e-10, 1e-10)
    assert float64_budget(backward=True) == Error(1e-9, 1e-9)
    ulp = 2.0**-23
    assert float32_budget(Error(1e-6, 2e-6)) == Error(
        pytest.approx(4e-6 + 4 * ulp), pytest.approx(8e-6 + 4 * ulp)
    )
