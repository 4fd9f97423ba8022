"""Records of the checks that stand apart."""

import numpy as np

from parity.budget import FLOAT32_FACTOR, FLOAT32_FLOOR, Error
from parity.comparison import Comparison
from parity.standalone.findings import Recorder, in_short


def test_a_fact_is_in_or_out() -> None:
    recorder = Recorder("shapes", "net", mode="eval")
    assert recorder.fact("2 of 8x8", True, "fine").ok
    wrong = recorder.fact("2 of 8x8", False, "Flax refuses it")
    assert not wrong.ok
    assert (wrong.check, wrong.network, wrong.mode) == ("shapes", "net", "eval")
    assert (wrong.dtype, wrong.layer, wrong.note) == ("", "2 of 8x8", "Flax refuses it")


def test_a_number_is_in_up_to_its_budget() -> None:
    recorder = Recorder("dropout", "net")
    assert recorder.number("rate", 6.0, 6.0, "").ok
    assert not recorder.number("rate", 6.1, 6.0, "").ok


def test_an_array_is_judged_by_the_measure_nearest_its_budget() -> None:
    oracle = np.ones(100)
    one_off = oracle.copy()
    one_off[3] += 5e-10
    found = Recorder("export", "net", "float64").array("x", one_off, oracle)
    assert (found.measure, found.budget, found.reference) == ("worst", 1e-10, None)
    assert not found.ok
    np.testing.assert_allclose(found.error, 5e-10, rtol=1e-6)
    assert Recorder("export", "net", "float64").array("x", one_off, oracle, backward=True).ok


def test_budgets_are_of_pytorchs_error_in_the_same_dtype() -> None:
    oracle, value = np.ones(4), np.full(4, 1.01)
    own = [Error(0.001, 0.001), Error(0.002, 0.0005)]
    single = Recorder("export", "net", "float32").array("x", value, oracle, own)
    assert single.measure == "worst"
    assert single.reference == 0.001
    assert single.budget == FLOAT32_FACTOR * 0.001 + FLOAT32_FLOOR
    assert not single.ok
    half = Recorder("export", "net", "bfloat16").array("x", value, oracle, own)
    assert half.budget == FLOAT32_FACTOR * 0.001 + 4 / 128
    assert half.ok


def test_another_shape_is_told() -> None:
    found = Recorder("export", "net", "float64").array("x", np.ones(3), np.ones(4))
    assert not found.ok
    assert found.note == "shape (3,), PyTorch's is (4,)"


def test_in_short_keeps_the_first_that_is_out_or_else_the_worst() -> None:
    def made(check: str, layer: str, error: float) -> Comparison:
        return Comparison("net", check, "float64", "eval", layer, error=error, budget=1.0)

    found = [
        made("names", "", 0.0),
        *(made("layers", "a", 0.5), made("layers", "b", 0.9), made("layers", "c", 0.1)),
        *(made("logits", "a", 0.9), made("logits", "b", 2.0), made("logits", "c", 3.0)),
    ]
    short = in_short("dropout", found)
    assert [c.layer for c in short] == ["names", "layers, b", "logits, b"]
    assert {c.check for c in short} == {"dropout"}
    assert [c.ok for c in short] == [True, True, False]
