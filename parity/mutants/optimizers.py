"""Mistakes in SGD."""

from functools import partial

from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from train import optimizer

_OPTIMIZER = Place("lockstep", "optimizer")

_DECAY = "parts = [optax.add_decayed_weights(weight_decay)]"
_RATE = "parts.append(optax.scale_by_learning_rate(learning_rate))"
_TRACE = "parts.append(optax.trace(decay=momentum, nesterov=nesterov))"


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
        change=_sgd((f"{_RATE}\n    chain", "chain"), (_TRACE, f"{_RATE}\n        {_TRACE}")),
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
)
