"""Mistakes in the loss and the training step."""

from functools import partial

from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from train import step

_LOSS = Place("lockstep", "loss")

_NEW_STATE = "TrainState(state.step + 1, params, model_state, opt_state)"

MUTANTS = (
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
)
