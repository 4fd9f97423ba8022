"""Mistakes in dense blocks and transitions."""

from functools import partial

from flaxnets import densenet
from parity.mutants.changes import edited
from parity.mutants.mutant import REFUSAL, Mutant, Place, output_of

MUTANTS = (
    Mutant(
        name="norm after the ReLU",
        description="a dense layer activates first and normalises then",
        expected=output_of("denseblock1.denselayer1.norm2"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.DenseLayer.grow,
            ("relu(self.norm2(y))", "self.norm2(relu(y))"),
        ),
    ),
    Mutant(
        name="concatenation reversed",
        description="a dense layer's new maps stand in front of those that it read",
        expected=output_of("denseblock1.denselayer2.norm1"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.DenseBlock.__call__,
            ("if self.new_first else", "if not self.new_first else"),
        ),
    ),
    Mutant(
        name="dense block forgets",
        description="the second layer of a dense block reads the first's new maps alone",
        expected=output_of("denseblock1.denselayer2.norm1"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.DenseBlock.__call__,
            ("maps = new + maps if self.new_first else maps + new", "maps = new"),
        ),
    ),
    Mutant(
        name="compression rounded up",
        description="a transition keeps ceil(theta * channels)",
        expected=Place(REFUSAL, "transition1.conv.weight"),
        subject="densenet, odd sizes, eval",
        change=partial(
            edited,
            densenet.DenseNet.__init__,
            ("int(channels * config.compression)", "-int(-channels * config.compression // 1)"),
        ),
    ),
    Mutant(
        name="transition's ReLU missing",
        description="a transition convolves what its norm gives",
        expected=output_of("transition1.conv"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.Transition.__call__,
            ("relu(y) if self.relu else y", "y"),
        ),
    ),
    Mutant(
        name="last dense norm's ReLU missing",
        description="a DenseNet pools what its last norm gives",
        expected=output_of("classifier"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.DenseNet.features,
            ("global_avg_pool(relu(self.norm5(maps)))", "global_avg_pool(self.norm5(maps))"),
        ),
    ),
    Mutant(
        name="pooling before the transition's convolution",
        description="a transition pools first: the same but for rounding, as both are linear",
        expected=output_of("transition1.conv"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.Transition.__call__,
            ("self.conv(relu(y) if self.relu else y)", "self.conv(avg_pool(relu(y), 2))"),
            ("return avg_pool(y, 2)", "return y"),
        ),
    ),
    Mutant(
        name="shared maps not normalised anew",
        description="a transition's norm forgets that its maps bring their statistics along",
        expected=Place("layers", "transition1.norm"),
        subject="densenet, train",
        change=partial(
            edited,
            densenet.Transition.__call__,
            (
                "self.norm(maps)",
                "self.norm(FeatureMaps(maps.values, maps.values, maps.mean, maps.var))",
            ),
        ),
    ),
)
