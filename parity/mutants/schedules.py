"""Mistakes in learning-rate schedules."""

from functools import partial

from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from train import schedule

_SCHEDULE = Place("lockstep", "schedule")

MUTANTS = (
    Mutant(
        name="schedule one epoch early",
        description="a drop at epoch m comes at epoch m - 1",
        expected=_SCHEDULE,
        subject="training, step schedule",
        change=partial(
            edited,
            schedule.build,
            ("[m * steps_per_epoch for m", "[(m - 1) * steps_per_epoch for m"),
        ),
    ),
    Mutant(
        name="schedule one step late",
        description="an epoch's first update is still made with the old rate",
        expected=_SCHEDULE,
        subject="training, step schedule",
        change=partial(edited, schedule.step, ("jnp.asarray(step) >=", "jnp.asarray(step) >")),
    ),
    Mutant(
        name="drops not multiplied",
        description="every drop is from the first rate, not from the one before",
        expected=_SCHEDULE,
        subject="training, step schedule",
        change=partial(edited, schedule.step, ("rates[-1] * factor", "rates[0] * factor")),
    ),
    Mutant(
        name="warm-up missing",
        description="training begins at the full rate",
        expected=_SCHEDULE,
        subject="training, warm-up",
        change=partial(
            edited,
            schedule.build,
            (
                "return warm_up(schedule, round(warmup_epochs * steps_per_epoch))",
                "return schedule",
            ),
        ),
    ),
    Mutant(
        name="warm-up from 0",
        description="the first update has rate 0, and the full rate comes a step late",
        expected=_SCHEDULE,
        subject="training, warm-up",
        change=partial(
            edited,
            schedule.warm_up,
            (
                "(jnp.asarray(step, dtype=float) + 1.0) / steps",
                "jnp.asarray(step, dtype=float) / steps",
            ),
        ),
    ),
    Mutant(
        name="cosine to a floor",
        description="the cosine ends at a hundredth of the rate, not at 0",
        expected=_SCHEDULE,
        subject="training, cosine schedule",
        change=partial(
            edited,
            schedule.cosine,
            (
                "return 0.5 * learning_rate * (1.0 + jnp.cos(jnp.pi * progress))",
                "share = 0.5 * (1.0 + jnp.cos(jnp.pi * progress))\n"
                "        return learning_rate * (0.01 + 0.99 * share)",
            ),
        ),
    ),
    Mutant(
        name="cosine changes once an epoch",
        description="the cosine's rate stays the same for an epoch",
        expected=_SCHEDULE,
        subject="training, cosine schedule",
        change=partial(
            edited,
            schedule.build,
            (
                "schedule = cosine(learning_rate, epochs * steps_per_epoch)",
                "epochwise = cosine(learning_rate, epochs)\n\n"
                "        def schedule(step):\n"
                "            return epochwise(step // steps_per_epoch)\n",
            ),
        ),
    ),
    Mutant(
        name="cosine a step too short",
        description="the last update has rate 0",
        expected=_SCHEDULE,
        subject="training, cosine schedule",
        change=partial(
            edited,
            schedule.cosine,
            ("dtype=float) / total_steps", "dtype=float) / (total_steps - 1)"),
        ),
    ),
)
