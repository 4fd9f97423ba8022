"""The two trainers: what they are asked for is what they do."""

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from parity import lockstep, training
from parity.cases import Case
from parity.deviations import compare
from parity.lockstep import EPOCH, FAMILIES, RECIPE
from parity.pairs import make_pair
from parity.record import full_precision
from parity.training import FlaxTrainer, run_torch, torch_scheduler
from parity.weights import random_batches

NESTEROV = {"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}


def torch_rates(steps: int = 9, **options: Any) -> list[float]:
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=0.1)
    scheduler = torch_scheduler(optimizer, dataclasses.replace(RECIPE, **options), EPOCH)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return rates


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, [0.1] * 9),
        (
            {"schedule": "step", "milestones": (1, 2), "decay_factor": 0.1},
            [0.1] * 3 + [0.01] * 3 + [0.001] * 3,
        ),
        ({"schedule": "cosine"}, 0.05 * (1 + np.cos(np.pi * np.arange(9) / 9))),
        ({"schedule": "constant", "warmup_epochs": 1.0}, [0.1 / 3, 0.2 / 3] + [0.1] * 7),
    ],
)
def test_pytorchs_schedulers_are_as_the_recipe_says(options: dict, expected: Any) -> None:
    np.testing.assert_allclose(torch_rates(**options), expected, rtol=1e-12)


def test_a_schedule_without_a_scheduler_is_refused() -> None:
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    recipe = dataclasses.replace(RECIPE)
    object.__setattr__(recipe, "schedule", "linear")
    with pytest.raises(ValueError, match="no scheduler of PyTorch's is known to be 'linear'"):
        torch_scheduler(optimizer, recipe, EPOCH)


@pytest.fixture(scope="module")
def runs() -> dict[str, list[training.Snapshot]]:
    """Runs of one Flax trainer after the other, and PyTorch's twin of the second."""
    arch, overrides = FAMILIES["preact"]
    pair = make_pair(Case("preact", arch, overrides, 8, 12, 4), seed=0)
    drawn = random_batches(count=3, size=4, height=8, width=12, classes=10)
    batches = list(zip(drawn.images, drawn.labels, strict=True))
    config = dataclasses.replace(RECIPE, **NESTEROV)
    plain = {"momentum": 0.0, "nesterov": False, "weight_decay": 0.0}
    with full_precision("float64"):
        rates = config.learning_rates(EPOCH)
        trainer = FlaxTrainer(pair.make_flax("float64"), [rates], [plain, NESTEROV])
        return {
            "plain": list(trainer.run(batches, option=0)),
            "nesterov": list(trainer.run(batches, option=1)),
            "plain again": list(trainer.run(batches, option=0)),
            "PyTorch": list(run_torch(pair.torch, config, EPOCH, batches)),
        }


def test_both_sides_agree_array_by_array(runs: dict[str, list[training.Snapshot]]) -> None:
    for step, sides in enumerate(zip(runs["nesterov"], runs["PyTorch"], strict=True), start=1):
        found = compare(step, *sides)
        assert all(each.ok for each in found)
        assert max(each.error for each in found) < 1e-12


def test_every_run_begins_with_the_same_weights(runs: dict[str, list[training.Snapshot]]) -> None:
    for ours, again in zip(runs["plain"], runs["plain again"], strict=True):
        for kind in training.Snapshot._fields:
            for key, value in getattr(ours, kind).items():
                np.testing.assert_array_equal(value, getattr(again, kind)[key])
    for key, value in runs["plain"][0].gradients.items():
        np.testing.assert_allclose(value, runs["nesterov"][0].gradients[key], atol=1e-13)


def test_snapshots_are_of_their_own_update(runs: dict[str, list[training.Snapshot]]) -> None:
    first, second, _ = runs["plain"]
    assert first.momentum == {}
    key = "fc.weight"
    moved = first.parameters[key] - 0.05 * second.gradients[key]
    np.testing.assert_allclose(second.parameters[key], moved, rtol=1e-12)
    assert np.abs(second.gradients[key] - first.gradients[key]).max() > 1e-3
    buffer = 0.9 * runs["nesterov"][0].momentum[key] + runs["nesterov"][1].gradients[key]
    decay = 5e-4 * runs["nesterov"][0].parameters[key]
    np.testing.assert_allclose(runs["nesterov"][1].momentum[key], buffer + decay, rtol=1e-9)


def test_a_runs_title_tells_its_options() -> None:
    config = dataclasses.replace(RECIPE, **NESTEROV, schedule="cosine", warmup_epochs=1.5)
    assert lockstep.title("wrn", config) == "wrn, nesterov, weight decay, cosine, warm-up"
    assert lockstep.title("wrn", RECIPE) == "wrn, no momentum, constant"
