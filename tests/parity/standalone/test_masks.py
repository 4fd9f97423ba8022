"""Statistics of dropout's masks: independent ones pass, and each dependence is named."""

from collections.abc import Callable

import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.layers import Layers
from parity.comparison import Comparison
from parity.standalone import masks
from parity.standalone.findings import Recorder
from train.step import TrainState, make_train_step

RATE = 0.3
SHAPE = (16, 8, 6, 7, 16)
RECORDER = Recorder("dropout", "net", "float32", "train")
PROPERTIES = ["rate", "places", "pictures", "rows", "columns", "channels", "steps"]


def of_layer(dropped: np.ndarray) -> list[Comparison]:
    standardised = (np.broadcast_to(dropped, SHAPE) - RATE) / np.sqrt(RATE * (1 - RATE))
    return list(masks.of_layer(RECORDER, "layer", standardised, RATE))


def out(found: list[Comparison]) -> list[str]:
    return [c.layer.removeprefix("layer, ") for c in found if not c.ok]


@pytest.mark.parametrize("seed", range(5))
def test_independent_draws_pass(seed: int) -> None:
    found = of_layer(np.random.default_rng(seed).random(SHAPE) < RATE)
    assert [c.layer for c in found] == [f"layer, {name}" for name in PROPERTIES]
    assert max(c.error for c in found) < 4.5
    # Numbers that are much too small would be a sign of a wrong standard deviation, too.
    assert max(c.error for c in found) > 0.3


@pytest.mark.parametrize(
    ("axis", "worst"),
    [(0, "steps"), (1, "pictures"), (2, "rows"), (3, "columns"), (4, "channels")],
)
def test_what_is_drawn_once_for_several_is_named(axis: int, worst: str) -> None:
    shape = (*SHAPE[:axis], 1, *SHAPE[axis + 1 :])
    found = of_layer(np.random.default_rng(0).random(shape) < RATE)
    # The others may be out as well: there are fewer draws than they count on.
    correlated = [c for c in found if c.layer != "layer, places"]
    most = max(correlated, key=lambda c: c.error)
    assert most.layer == f"layer, {worst}"
    assert most.error > 200


def test_a_wrong_rate_is_named() -> None:
    assert out(of_layer(np.random.default_rng(0).random(SHAPE) < RATE + 0.02))[0] == "rate"


def test_places_that_are_dropped_more_often_are_named() -> None:
    rates = RATE + 0.15 * np.random.default_rng(1).choice([-1, 1], SHAPE[1:])
    assert out(of_layer(np.random.default_rng(0).random(SHAPE) < rates))[:1] == ["places"]


def test_masks_that_come_again_after_three_steps_are_named() -> None:
    dropped = np.random.default_rng(0).random((3, *SHAPE[1:])) < RATE
    found = {c.layer: c for c in of_layer(np.resize(dropped, SHAPE))}
    assert found["layer, steps"].error > 200
    assert "3 steps apart" in found["layer, steps"].note


@pytest.fixture
def of_network() -> Callable[[], list[Comparison]]:
    config = flaxnets.get_config("wrn_10_1", dropout=RATE)
    return lambda: list(masks.check_masks(RECORDER, config, 0))


def test_a_network_passes(of_network: Callable[[], list[Comparison]]) -> None:
    found = of_network()
    assert all(c.ok for c in found)
    assert len(found) == 3 * len(PROPERTIES) + 1


def test_layers_that_share_a_stream_are_found(
    monkeypatch: pytest.MonkeyPatch, of_network: Callable[[], list[Comparison]]
) -> None:
    def dropout(_: Layers, rate: float) -> nnx.Dropout | None:
        return nnx.data(nnx.Dropout(rate, rngs=nnx.Rngs(7)))

    monkeypatch.setattr(Layers, "dropout", dropout)
    wrong = [c for c in of_network() if not c.ok]
    assert [c.layer for c in wrong] == ["layers"]
    assert "of 3 pairs" in wrong[0].note


def test_a_step_that_does_not_move_the_stream_is_found(
    monkeypatch: pytest.MonkeyPatch, of_network: Callable[[], list[Comparison]]
) -> None:
    def forgetful(graph, optimizer):
        step = make_train_step(graph, optimizer)

        def run(state, images, labels):
            after, metrics = step(state, images, labels)
            kept = state.model_state
            return TrainState(after.step, after.params, kept, after.opt_state), metrics

        return run

    monkeypatch.setattr(masks, "make_train_step", forgetful)
    wrong = [c.layer for c in of_network() if not c.ok]
    assert [layer for layer in wrong if "steps" in layer] == [
        f"layer{stage}.0.dropout, steps" for stage in (1, 2, 3)
    ]
