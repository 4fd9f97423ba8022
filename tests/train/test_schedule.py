"""Schedules: exact values at and around every change, and against PyTorch's schedulers."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from train import schedule


def values(function, steps):
    return np.asarray(jax.jit(jax.vmap(function))(jnp.arange(steps, dtype=jnp.int32)))


def torch_values(steps, make_scheduler):
    torch = pytest.importorskip("torch")
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=0.1)
    scheduler = make_scheduler(torch.optim.lr_scheduler, optimizer)
    rates = []
    for _ in range(steps):
        rates.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        scheduler.step()
    return np.asarray(rates)


def test_constant():
    np.testing.assert_array_equal(values(schedule.constant(0.3), 3), np.float32([0.3] * 3))


def test_drop_takes_effect_with_the_first_update_of_the_milestone_epoch():
    rates = schedule.build("step", 0.1, epochs=6, steps_per_epoch=7, milestones=(2, 4), factor=0.2)
    got = values(rates, 42)
    np.testing.assert_array_equal(got[:14], np.float32(0.1))
    np.testing.assert_array_equal(got[14:28], np.float32(0.1 * 0.2))
    np.testing.assert_array_equal(got[28:], np.float32(0.1 * 0.2 * 0.2))


def test_step_equals_torch_exactly():
    with jax.enable_x64(True):
        got = values(schedule.step(0.1, [3, 8], 0.2), 12)
        assert got.dtype == np.float64
    expected = torch_values(12, lambda s, o: s.MultiStepLR(o, [3, 8], gamma=0.2))
    np.testing.assert_array_equal(got, expected)


def test_cosine_equals_torch_and_moves_with_every_update():
    with jax.enable_x64(True):
        got = values(schedule.build("cosine", 0.1, epochs=4, steps_per_epoch=5), 20)
    expected = torch_values(20, lambda s, o: s.CosineAnnealingLR(o, T_max=20))
    np.testing.assert_allclose(got, expected, rtol=1e-12)
    assert got[0] == 0.1
    assert (np.diff(got) < 0).all()
    assert got[-1] > 0


def test_cosine_stays_at_zero_after_its_end():
    np.testing.assert_allclose(values(schedule.cosine(0.1, 10), 15)[10:], 0.0, atol=1e-9)


def test_warm_up_equals_torch_chained_with_the_schedule_underneath():
    with jax.enable_x64(True):
        got = values(schedule.warm_up(schedule.step(0.1, [6], 0.1), 4), 10)

    def chained(schedulers, optimizer):
        linear = schedulers.LinearLR(optimizer, start_factor=1 / 4, total_iters=3)
        steps = schedulers.MultiStepLR(optimizer, [6], gamma=0.1)
        return schedulers.ChainedScheduler([linear, steps], optimizer)

    np.testing.assert_allclose(got, torch_values(10, chained), rtol=1e-12)
    np.testing.assert_allclose(got[:5], [0.025, 0.05, 0.075, 0.1, 0.1], rtol=1e-12)


def test_warm_up_of_part_of_an_epoch():
    rates = schedule.build("constant", 1.0, epochs=2, steps_per_epoch=8, warmup_epochs=0.5)
    np.testing.assert_array_equal(values(rates, 6), [0.25, 0.5, 0.75, 1, 1, 1])


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: schedule.step(0.1, [5, 3], 0.1), r"ascending.*\[5, 3\]"),
        (lambda: schedule.step(0.1, [-1], 0.1), "not negative"),
        (lambda: schedule.cosine(0.1, 0), "at least 1, got 0"),
        (lambda: schedule.warm_up(schedule.constant(1.0), -1), "not be negative"),
        (
            lambda: schedule.build("cosin", 0.1, epochs=1, steps_per_epoch=1),
            "unknown schedule 'cosin'; the schedules are step, cosine, constant",
        ),
    ],
)
def test_bad_arguments_are_refused(call, message):
    with pytest.raises(ValueError, match=message):
        call()
