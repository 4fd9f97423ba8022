"""Training in step: mistakes in the optimizer, the schedule and the step are told as such."""

import dataclasses
from collections.abc import Callable
from typing import Any

import optax
import pytest

from flaxnets.layers import BatchNorm
from parity import lockstep, training
from parity.comparison import CHECKS, Comparison
from train.recipes import Config

pytestmark = pytest.mark.usefixtures("quick_compilation")
NESTEROV = lockstep.OPTIMIZERS[2]
SCHEDULE = {"schedule": "step", "milestones": (1, 2), "warmup_epochs": 0.0}


def train(*optimizers: dict[str, Any]) -> list[Comparison]:
    return lockstep.check_family("preact", optimizers or (NESTEROV,), (SCHEDULE,), 0)


def out(found: list[Comparison]) -> list[str]:
    return [c.layer for c in found if not c.ok]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_all_is_well(seed: int) -> None:
    assert out(list(lockstep.check(seed, quick=False))) == []


def test_one_run_passes() -> None:
    found = train()
    assert out(found) == []
    assert "lockstep" in CHECKS
    assert {c.network for c in found} == {"preact, nesterov, weight decay, step"}
    assert len(found) == len(training.Snapshot._fields)
    assert max(c.error for c in found) < 1e-11


def test_every_optimizer_and_schedule_is_there() -> None:
    assert len({str(each) for each in lockstep.OPTIMIZERS}) == 6
    names = {(each["schedule"], each["warmup_epochs"] > 0) for each in lockstep.SCHEDULES}
    assert len(names) == len(lockstep.SCHEDULES) == 2 * len({name for name, _ in names})


@pytest.fixture
def with_optimizer(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    return lambda make: monkeypatch.setattr(training, "sgd", make)


def test_decoupled_weight_decay_is_the_optimizers(with_optimizer: Callable) -> None:
    def decoupled(rate: Any, *, momentum: float, nesterov: bool, weight_decay: float) -> Any:
        return optax.chain(
            optax.trace(momentum, nesterov),
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_learning_rate(rate),
        )

    with_optimizer(decoupled)
    first = out(train())[0]
    assert first.startswith("optimizer: step 1: momentum of ")


def test_a_rate_inside_the_buffer_is_the_optimizers_at_the_first_drop(
    with_optimizer: Callable,
) -> None:
    def inside(rate: Any, *, momentum: float, nesterov: bool, weight_decay: float) -> Any:
        def scaled(count: Any) -> Any:
            return rate(count) / rate(0)

        return optax.chain(
            optax.add_decayed_weights(weight_decay),
            optax.scale_by_schedule(scaled),
            optax.trace(momentum, nesterov),
            optax.scale(-rate(0)),
        )

    with_optimizer(inside)
    assert out(train())[0].startswith(f"optimizer: step {lockstep.EPOCH + 1}: momentum of ")


def test_a_schedule_that_is_a_step_late_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    learning_rates = Config.learning_rates

    def late(self: Config, steps_per_epoch: int) -> Any:
        rates = learning_rates(self, steps_per_epoch)
        return lambda step: rates(step - 1)

    monkeypatch.setattr(Config, "learning_rates", late)
    assert out(train())[0] == f"schedule: step {lockstep.EPOCH + 1}"


def test_statistics_that_move_too_fast_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    update = BatchNorm._update_running_statistics

    def fast(self: BatchNorm, *args: Any) -> None:
        self.momentum = 0.8
        update(self, *args)

    monkeypatch.setattr(BatchNorm, "_update_running_statistics", fast)
    assert out(train())[0] == "step 1: layer1.0.bn1.running_mean"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--arch", "resnet21", "--dataset", "digits"], "there is no network named 'resnet21'"),
        (["--dataset", "digits", "--plot", "/nowhere/at/all.png"], "there is no folder /nowhere"),
    ],
)
def test_a_run_that_cannot_be_is_refused(
    arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert lockstep.main(arguments) == 2
    assert message in capsys.readouterr().err


@pytest.mark.slow
def test_the_command_compares_a_real_run(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["--arch", "resnet20", "--dataset", "digits", "--steps", "2", "--dtype", "float64"]
    assert lockstep.main([*command, "--batch-size", "8"]) == 0
    assert "EQUAL: every array within 1e-09 after each of 2 steps" in capsys.readouterr().out


def test_recipes_are_complete() -> None:
    fields = {field.name for field in dataclasses.fields(lockstep.RECIPE)}
    assert {*lockstep.SCHEDULES[0], *NESTEROV} <= fields
