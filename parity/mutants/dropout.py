"""Mistakes in dropout."""

from functools import partial

from flax import nnx

from flaxnets import layers, preactivation, resnet
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place
from train import step

_KELLERJORDAN = "kellerjordan_resnet20"


def _layer(subject: str, layer: str = "layer1.0.dropout") -> Place:
    return Place("dropout", layer, subject)


def _made(arguments: str) -> partial:
    """Dropout layers are made with other arguments."""
    return partial(
        edited,
        layers.Layers.dropout,
        ("nnx.Dropout(rate, rngs=self.rngs)", f"nnx.Dropout({arguments})"),
    )


MUTANTS = (
    Mutant(
        name="dropout missing",
        description="a network's dropout is left out",
        expected=Place("names", "layer1.0.dropout"),
        subject="resnet with dropout, eval",
        change=partial(edited, layers.Layers.dropout, ("if rate else None", "if False else None")),
    ),
    Mutant(
        name="dropout active in evaluation",
        description="dropout drops in evaluation mode too",
        expected=Place("layers", "layer1.0.dropout"),
        subject="resnet with dropout, eval",
        change=partial(
            edited,
            nnx.Dropout.__call__,
            ("if (self.rate == 0.0) or deterministic:", "if self.rate == 0.0:"),
        ),
    ),
    Mutant(
        name="dropout moved within a block",
        description="a block drops in front of its last convolution, not behind its last norm",
        expected=_layer(_KELLERJORDAN),
        subject="dropout",
        change=partial(
            edited,
            resnet.ResidualBlock.__call__,
            ("y = relu(y)", "y = relu(y) if self.dropout is None else self.dropout(relu(y))"),
            ("    if self.dropout is not None:\n        y = self.dropout(y)\n", ""),
        ),
    ),
    Mutant(
        name="dropout behind the addition",
        description="a block drops its sum, and with it the shortcut",
        expected=_layer(_KELLERJORDAN),
        subject="dropout",
        change=partial(
            edited,
            resnet.ResidualBlock.__call__,
            ("    if self.dropout is not None:\n        y = self.dropout(y)\n", ""),
            (
                "return relu(y + (x if self.downsample is None else self.downsample(x)))",
                "y = y + (x if self.downsample is None else self.downsample(x))\n"
                "    return relu(y if self.dropout is None else self.dropout(y))",
            ),
        ),
    ),
    Mutant(
        name="late dropout",
        description="a pre-activated block drops late whatever is asked for",
        expected=_layer("wrn, before bn2"),
        subject="dropout",
        change=partial(
            edited,
            preactivation.PreactivationBlock.__init__,
            ('self.drops_after_first = dropout_before == "bn2"', "self.drops_after_first = False"),
        ),
    ),
    Mutant(
        name="dropout in every block",
        description="every block drops, not the first of each stage alone",
        expected=_layer(_KELLERJORDAN, "number of dropout layers"),
        subject="dropout",
        change=partial(
            edited,
            resnet.ResidualBlock.__init__,
            ("config.dropout if first else 0.0", "config.dropout"),
        ),
    ),
    Mutant(
        name="rate taken for the share that is kept",
        description="dropout of rate 0.3 drops 70 %",
        expected=_layer("wrn", "scaling"),
        subject="dropout",
        change=_made("1 - rate, rngs=self.rngs"),
    ),
    Mutant(
        name="dropout not scaled",
        description="what is kept is not divided by 1 - rate",
        expected=Place("dropout", "scaling"),
        subject="dropout",
        change=partial(edited, nnx.Dropout.__call__, ("inputs / keep_prob", "inputs")),
    ),
    Mutant(
        name="the same mask in every layer",
        description="all dropout layers draw from the same key",
        expected=_layer("masks", "layers"),
        subject="dropout",
        change=_made("rate, rngs=nnx.Rngs(dropout=0)"),
    ),
    Mutant(
        name="the same mask in every step",
        description="dropout's stream is not carried over from step to step",
        expected=_layer("masks"),
        subject="dropout",
        change=partial(
            edited,
            step.make_train_step,
            (
                "TrainState(state.step + 1, params, model_state, opt_state)",
                "TrainState(state.step + 1, params, state.model_state, opt_state)",
            ),
        ),
    ),
    Mutant(
        name="whole channels dropped",
        description="dropout drops a channel in all pixels or in none",
        expected=_layer("masks"),
        subject="dropout",
        change=_made("rate, broadcast_dims=(1, 2), rngs=self.rngs"),
    ),
    Mutant(
        name="one mask for all pictures",
        description="all pictures of a batch have the same mask",
        expected=_layer("masks"),
        subject="dropout",
        change=_made("rate, broadcast_dims=(0,), rngs=self.rngs"),
    ),
)
