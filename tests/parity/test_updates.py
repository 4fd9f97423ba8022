"""A few updates in both frameworks: what is wrong only after some of them is told."""

from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import pytest
import torch

from parity import updates
from parity.checks import Pair
from parity.comparison import Comparison
from parity.judge import Judge
from train.optimizer import sgd

pytestmark = pytest.mark.usefixtures("quick_compilation")
OPTIONS = {"momentum": updates.MOMENTUM, "nesterov": True, "weight_decay": updates.WEIGHT_DECAY}


def compare(pair: Pair) -> tuple[list[Comparison], list[str]]:
    judge = Judge(pair.name, "float64", "train")
    model = pair.flax("float64")
    found = updates.compare_updates(judge, pair.torch, model, pair.batches, pair.rename)
    return found, [c.layer.partition(":")[0] for c in found if not c.ok]


@pytest.fixture
def with_optimizer(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    right = updates._rate

    def plant(rate: Callable[..., jax.Array] = right, **options: Any) -> None:
        monkeypatch.setattr(
            updates,
            "_optimizer",
            lambda rates: sgd(lambda step: rate(rates, step), **(OPTIONS | options)),
        )
        # What was compiled with the right optimizer is not to be used again.
        update = updates._update.__wrapped__
        monkeypatch.setattr(updates, "_update", jax.jit(lambda *args: update(*args)))

    return plant


def test_updates_agree_and_change_nothing(tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair()
    before = {key: value.clone() for key, value in pair.torch.state_dict().items()}
    found, out = compare(pair)
    assert out == []
    kinds = ("parameters", "momentum", "statistics")
    places = [c.layer.partition(":")[0] for c in found]
    assert places == [f"{kind} after step {step}" for step in (1, 2) for kind in kinds]
    assert all(torch.equal(value, before[key]) for key, value in pair.torch.state_dict().items())


def test_training_really_moves_the_parameters(tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair()
    start = pair.torch.state_dict()["fc.bias"].numpy().copy()
    # A snapshot is good until the next update.
    rates = updates.choose_rates(pair.torch, pair.batches)
    steps = updates.train_torch(pair.torch, pair.batches, rates)
    fc = [step.parameters["fc.bias"].copy() for step in steps]
    assert np.abs(fc[0] - start).max() > 1e-4
    assert np.abs(fc[1] - fc[0]).max() > 1e-5


def test_the_first_update_changes_a_thousandth(tiny_pair: Callable[..., Pair]) -> None:
    pair = tiny_pair()
    before = {key: value.detach().numpy() for key, value in pair.torch.named_parameters()}
    rates = updates.choose_rates(pair.torch, pair.batches)
    after = next(updates.train_torch(pair.torch, pair.batches, rates)).parameters
    change = sum(np.square(after[key] - value).sum() for key, value in before.items())
    size = sum(np.square(value).sum() for value in before.values())
    # Nesterov's first update is 1.9 times the gradient; weight decay adds little.
    assert np.sqrt(change / size) == pytest.approx(1.9e-3, rel=0.05)
    assert rates[1] == pytest.approx(rates[0] / 5)


def test_a_rate_that_changes_too_late_is_found(
    tiny_pair: Callable[..., Pair], with_optimizer: Callable[..., None]
) -> None:
    right = updates._rate
    with_optimizer(lambda rates, step: right(rates, step - 1))
    assert compare(tiny_pair())[1][:1] == ["parameters after step 2"]


@pytest.mark.parametrize(
    "options", [{"nesterov": False}, {"momentum": 0.8}, {"weight_decay": 0.0}], ids=str
)
def test_another_optimizer_is_found(
    options: dict[str, float],
    tiny_pair: Callable[..., Pair],
    with_optimizer: Callable[..., None],
) -> None:
    with_optimizer(**options)
    assert compare(tiny_pair())[1][0] == "parameters after step 1"


def test_statistics_out_in_step_one_are_told_there(tiny_pair: Callable[..., Pair]) -> None:
    out = compare(tiny_pair("biased running variance"))[1]
    assert out == ["statistics after step 1", "statistics after step 2"]
