"""How a run's deviations are told: the first array that is out, and what its cause is."""

from typing import Any

import numpy as np
import pytest

from parity.deviations import Deviation, compare, judge
from parity.training import Snapshot

KEYS = ("conv.weight", "bn.weight", "fc.weight")


def snapshot(**changes: dict[str, np.ndarray]) -> Snapshot:
    arrays: dict[str, Any] = {
        kind: {key: np.arange(1.0, 5.0) for key in KEYS}
        for kind in ("gradients", "momentum", "parameters")
    }
    arrays |= {"learning_rate": {"": np.array(0.1)}, "loss": {"": np.array(2.0)}}
    arrays["statistics"] = {"bn.running_mean": np.ones(3), "bn.running_var": np.ones(3)}
    for kind, values in changes.items():
        arrays[kind] = arrays[kind] | values
    return Snapshot(**arrays)


def off(by: float = 1e-6) -> np.ndarray:
    return np.arange(1.0, 5.0) + by


def test_equal_snapshots_have_no_deviation() -> None:
    found = compare(3, snapshot(), snapshot())
    assert [each.kind for each in found] == list(Snapshot._fields)
    assert all(each.ok and each.error == 0 and each.step == 3 for each in found)


def test_there_is_no_deviation_of_what_neither_side_has() -> None:
    without = snapshot()._replace(momentum={})
    found = compare(1, without, without)
    assert [each.kind for each in found] == [k for k in Snapshot._fields if k != "momentum"]
    assert not compare(1, without, snapshot())[Snapshot._fields.index("momentum")].ok


def test_of_those_within_budget_the_farthest_is_told() -> None:
    changed = snapshot(parameters={"bn.weight": off(4e-12), "fc.weight": off(1e-12)})
    found = {each.kind: each for each in compare(1, changed, snapshot())}
    assert found["parameters"].ok
    assert found["parameters"].key == "bn.weight"
    np.testing.assert_allclose(found["parameters"].error, 4e-12 / np.sqrt(7.5), rtol=1e-3)
    assert found["parameters"].measure == "norm"


@pytest.mark.parametrize(
    ("kind", "key"), [("parameters", "conv.weight"), ("gradients", "fc.weight")]
)
def test_of_those_out_of_budget_the_first_that_was_computed_is_told(kind: str, key: str) -> None:
    changed = snapshot(**{kind: {"conv.weight": off(), "bn.weight": off(1e-3), "fc.weight": off()}})
    found = {each.kind: each for each in compare(2, changed, snapshot())}
    assert not found[kind].ok
    assert found[kind].key == key


def test_a_gradient_that_is_zero_but_for_rounding_counts_by_its_layer() -> None:
    tiny = {"conv.bias": np.full(4, 1e-17)}
    found = compare(1, snapshot(gradients={"conv.bias": np.full(4, 3e-17)}), snapshot())
    assert not found[Snapshot._fields.index("gradients")].ok  # only one side has it
    both = compare(
        1, snapshot(gradients={"conv.bias": np.full(4, 3e-17)}), snapshot(gradients=tiny)
    )
    assert both[Snapshot._fields.index("gradients")].error < 1e-12


@pytest.mark.parametrize("side", [0, 1])
def test_a_key_that_only_one_side_has_is_out(side: int) -> None:
    sides = [snapshot(), snapshot()]
    sides[side] = snapshot(statistics={"bn.num_batches_tracked": np.array(1)})
    found = compare(1, *sides)[Snapshot._fields.index("statistics")]
    assert (found.key, found.error, found.measure) == ("bn.num_batches_tracked", np.inf, "exact")


def judged(*changes: dict[str, Any]) -> list:
    steps = [compare(n, snapshot(**each), snapshot()) for n, each in enumerate(changes, start=1)]
    return judge("net", steps)


def test_a_run_is_judged_by_kinds() -> None:
    found = judged({}, {"loss": {"": np.array(2.0 + 1e-13)}})
    assert len(found) == len(Snapshot._fields)
    assert all(c.ok for c in found)
    assert "step 2: loss" in [c.layer for c in found]
    assert {(c.check, c.dtype, c.mode, c.network) for c in found} == {
        ("lockstep", "float64", "train", "net")
    }


def test_what_failed_first_comes_first() -> None:
    first, second, *_ = judged(
        {},
        {"statistics": {"bn.running_var": np.full(3, 1.1)}},
        {"loss": {"": np.array(2.5)}, "statistics": {"bn.running_var": np.full(3, 1.4)}},
    )
    assert (first.layer, second.layer) == ("step 2: bn.running_var", "step 3: loss")
    np.testing.assert_allclose(first.error, 0.1)
    assert first.note == "at most 4.0e-01, at step 3: bn.running_var"


def test_a_wrong_learning_rate_is_the_schedules() -> None:
    first = judged({}, {"learning_rate": {"": np.array(0.05)}, "parameters": {KEYS[0]: off()}})[0]
    assert first.layer == "schedule: step 2"


def test_wrong_parameters_after_right_gradients_are_the_optimizers() -> None:
    found = judged({"momentum": {"conv.weight": off()}, "parameters": {"conv.weight": off()}})
    out = [c.layer for c in found if not c.ok]
    assert out == ["optimizer: step 1: momentum of conv.weight", "optimizer: step 1: conv.weight"]
    found = judged({"gradients": {"conv.weight": off()}, "parameters": {"conv.weight": off()}})
    out = [c.layer for c in found if not c.ok]
    assert out == ["step 1: gradient of conv.weight", "step 1: conv.weight"]


def test_a_deviation_just_beyond_the_budget_is_out() -> None:
    assert Deviation(1, "loss", error=1e-9).ok
    assert not Deviation(1, "loss", error=1.01e-9).ok
