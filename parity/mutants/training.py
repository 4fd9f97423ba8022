"""Mistakes in the training step, the optimizer and the schedules."""

from functools import partial

from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from train import optimizer, schedule, step

_OPTIMIZER = Place("lockstep", "optimizer")
_SCHEDULE = Place("lockstep", "schedule")
_LOSS = Place("lockstep", "loss")

_DECAY = "parts = [optax.add_decayed_weights(weight_decay)]"
_RATE = "parts.append(optax.scale_by_learning_rate(learning_rate))"
_TRACE = "parts.append(optax.trace(decay=momentum, nesterov=nesterov))"
_NEW_STATE = "TrainState(state.step + 1, params, model_state, opt_state)"


def _sgd(*replacements: tuple[str, str]) -> partial:
    return partial(edited, optimizer.sgd, *replacements)


MUTANTS = (
    Mutant(
        name="weight decay after momentum",
        description="weight decay is added to the update, not to the gradient",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd(
            (_DECAY, "parts = []"),
            (_RATE, f"parts.append(optax.add_decayed_weights(weight_decay))\n    {_RATE}"),
        ),
    ),
    Mutant(
        name="weight decay decoupled",
        description="weights shrink by weight_decay a step, whatever the learning rate",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd(
            (_DECAY, "parts = []"),
            (_RATE, f"{_RATE}\n    parts.append(optax.add_decayed_weights(-weight_decay))"),
        ),
    ),
    Mutant(
        name="weight decay not on batch norm",
        description="scales and biases don't decay",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd(
            (
                _DECAY,
                "import jax\n\n"
                "    def decays(params):\n"
                "        return jax.tree.map(lambda each: each.ndim > 1, params)\n\n"
                "    parts = [optax.add_decayed_weights(weight_decay, mask=decays)]",
            )
        ),
    ),
    Mutant(
        name="weight decay forgotten",
        description="no weight decays",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd((_DECAY, "parts = []")),
    ),
    Mutant(
        name="weight decay halved",
        description="the penalty is taken for weight_decay / 2 * ||p||^2 of another definition",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd((_DECAY, "parts = [optax.add_decayed_weights(weight_decay / 2)]")),
    ),
    Mutant(
        name="Nesterov forgotten",
        description="the update is the momentum buffer",
        expected=_OPTIMIZER,
        subject="training, nesterov",
        change=_sgd((_TRACE, "parts.append(optax.trace(decay=momentum))")),
    ),
    Mutant(
        name="Nesterov of another library",
        description="momentum * buffer is the update, without the gradient",
        expected=_OPTIMIZER,
        subject="training, nesterov",
        change=_sgd((_TRACE, "parts += [optax.trace(decay=momentum), optax.scale(momentum)]")),
    ),
    Mutant(
        name="dampening",
        description="the gradient enters the buffer times 1 - momentum, as in a moving average",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd((_TRACE, f"parts.append(optax.scale(1 - momentum))\n        {_TRACE}")),
    ),
    Mutant(
        name="learning rate inside the buffer",
        description="the buffer collects updates, so old ones keep the rate that they were made at",
        expected=_OPTIMIZER,
        subject="training, step schedule",
        change=_sgd((f"{_RATE}\n    return", "return"), (_TRACE, f"{_RATE}\n        {_TRACE}")),
    ),
    Mutant(
        name="momentum not carried over",
        description="the buffer starts anew at every step",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd((_TRACE, "parts.append(optax.trace(decay=0.0))")),
    ),
    Mutant(
        name="gradients clipped",
        description="gradients are clipped to a norm of 0.1, as a recipe of another library does",
        expected=_OPTIMIZER,
        subject="training, momentum",
        change=_sgd((_DECAY, f"{_DECAY}\n    parts.insert(0, optax.clip_by_global_norm(0.1))")),
    ),
    Mutant(
        name="gradients summed",
        description="gradients are sums over the pictures, as over devices that all add theirs",
        expected=Place("lockstep", "gradient of fc.bias"),
        subject="training, momentum",
        change=partial(
            edited,
            step.make_train_step,
            (
                "updates, opt_state = ",
                "gradients = jax.tree.map(lambda each: len(labels) * each, gradients)\n"
                "        updates, opt_state = ",
            ),
        ),
    ),
    Mutant(
        name="loss summed",
        description="the loss is the sum over the pictures, not their mean",
        expected=_LOSS,
        subject="training, momentum",
        change=partial(
            edited,
            step.make_train_step,
            ("cross_entropy(logits, labels).mean()", "cross_entropy(logits, labels).sum()"),
        ),
    ),
    Mutant(
        name="labels smoothed",
        description="cross-entropy with label smoothing of 0.1 by default",
        expected=_LOSS,
        subject="training, momentum",
        change=partial(
            edited,
            step.cross_entropy,
            (
                "return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)",
                "smooth = optax.smooth_labels(jax.nn.one_hot(labels, logits.shape[-1]), 0.1)\n"
                "    return optax.losses.softmax_cross_entropy(logits, smooth)",
            ),
        ),
    ),
    Mutant(
        name="loss in bfloat16",
        description="cross-entropy is computed in bfloat16",
        expected=_LOSS,
        subject="training, momentum",
        change=partial(
            edited,
            step.cross_entropy,
            ("jnp.promote_types(logits.dtype, jnp.float32)", "jnp.bfloat16"),
        ),
    ),
    Mutant(
        name="softmax twice",
        description="cross-entropy is given probabilities where it takes logits",
        expected=_LOSS,
        subject="training, momentum",
        change=partial(
            edited,
            step.cross_entropy,
            ("integer_labels(logits, labels)", "integer_labels(jax.nn.softmax(logits), labels)"),
        ),
    ),
    Mutant(
        name="trained in evaluation mode",
        description="the network that trains is left in evaluation mode",
        expected=_LOSS,
        subject="training, momentum",
        change=partial(edited, step.split, ("model.train()", "model.eval()")),
    ),
    Mutant(
        name="statistics not carried over",
        description="each step begins with the running statistics of the first",
        expected=Place("lockstep", "bn1.running_mean"),
        subject="training, momentum",
        change=partial(
            edited,
            step.make_train_step,
            (_NEW_STATE, _NEW_STATE.replace("model_state", "state.model_state")),
        ),
    ),
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
