"""Learning rates as functions of the step.

A schedule takes the step (int32 scalar, traced or not; 0 for the first update) and returns the
learning rate of that update, a scalar in JAX's default float type. Epochs are counted from 0 here:
epoch ``e`` is the steps from ``e * steps_per_epoch`` up to, not including, the next epoch's first.
"""

from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp

Schedule = Callable[[jax.typing.ArrayLike], jax.Array]

SCHEDULES = ("step", "cosine", "constant")


def constant(learning_rate: float) -> Schedule:
    """Return the same rate for every step."""

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        del step
        return jnp.asarray(learning_rate, dtype=float)

    return schedule


def step(learning_rate: float, boundaries: Sequence[int], factor: float) -> Schedule:
    """Multiply the rate by ``factor`` at each boundary.

    The update at step ``boundaries[i]`` is the first one made with the new rate, as with
    ``torch.optim.lr_scheduler.MultiStepLR`` stepped once after each update. A drop "at epoch 100"
    is the boundary ``100 * steps_per_epoch``: 100 whole epochs at the old rate precede it.

    Args:
        learning_rate: the rate before the first boundary.
        boundaries: steps, in ascending order; one given twice multiplies twice.
        factor: 0.1 divides by ten.
    """
    if list(boundaries) != sorted(boundaries) or any(boundary < 0 for boundary in boundaries):
        raise ValueError(f"boundaries must be ascending and not negative, got {boundaries}")
    # One multiplication after another in Python's float64, the roundings PyTorch makes.
    rates = [learning_rate]
    for _ in boundaries:
        rates.append(rates[-1] * factor)

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        passed = jnp.sum(jnp.asarray(step) >= jnp.asarray(boundaries, dtype=jnp.int32))
        return jnp.asarray(rates, dtype=float)[passed]

    return schedule


def cosine(learning_rate: float, total_steps: int) -> Schedule:
    """Fall from ``learning_rate`` at step 0 to 0 at ``total_steps`` along half a cosine.

    It changes with every update (xternalz' WRN code), not once an epoch. The last update, step
    ``total_steps - 1``, still has a rate above 0; the rate stays 0 from ``total_steps`` on.
    Source: Loshchilov and Hutter 2017, equation 5 without restarts.
    """
    if total_steps < 1:
        raise ValueError(f"total_steps must be at least 1, got {total_steps}")

    def schedule(step: jax.typing.ArrayLike) -> jax.Array:
        progress = jnp.minimum(jnp.asarray(step, dtype=float) / total_steps, 1.0)
        return 0.5 * learning_rate * (1.0 + jnp.cos(jnp.pi * progress))

    return schedule


def warm_up(schedule: Schedule, steps: int) -> Schedule:
    """Scale ``schedule`` by 1/steps, 2/steps, ... over its first ``steps`` updates.

    Update ``steps - 1`` is the first one at the full rate. The schedule underneath keeps its own
    count (it isn't delayed), as PyTorch's ``ChainedScheduler`` of a ``LinearLR`` that starts at
    ``1 / steps`` and another scheduler does.
    """
    if steps < 0:
        raise ValueError(f"warm-up steps must not be negative, got {steps}")
    if steps == 0:
        return schedule

    def warmed(step: jax.typing.ArrayLike) -> jax.Array:
        return schedule(step) * jnp.minimum((jnp.asarray(step, dtype=float) + 1.0) / steps, 1.0)

    return warmed


def build(
    name: str,
    learning_rate: float,
    *,
    epochs: int,
    steps_per_epoch: int,
    milestones: Sequence[int] = (),
    factor: float = 0.1,
    warmup_epochs: float = 0.0,
) -> Schedule:
    """Build a schedule whose durations are in epochs.

    Args:
        name: ``"step"``, ``"cosine"`` or ``"constant"``.
        learning_rate: the highest rate.
        epochs: length of the run; the cosine reaches 0 at its end.
        steps_per_epoch: updates in one epoch.
        milestones: 0-based epochs whose first update is the first one at the multiplied rate.
        factor: of the step schedule.
        warmup_epochs: length of the linear warm-up, rounded to whole updates.

    Raises:
        ValueError: an unknown name, or milestones that aren't ascending.
    """
    if name == "step":
        schedule = step(learning_rate, [m * steps_per_epoch for m in milestones], factor)
    elif name == "cosine":
        schedule = cosine(learning_rate, epochs * steps_per_epoch)
    elif name == "constant":
        schedule = constant(learning_rate)
    else:
        raise ValueError(f"unknown schedule {name!r}; the schedules are {', '.join(SCHEDULES)}")
    return warm_up(schedule, round(warmup_epochs * steps_per_epoch))
