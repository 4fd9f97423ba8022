"""Mistakes in shortcuts."""

from functools import partial

from flaxnets import layers, preactivation, resnet, shortcuts
from parity.mutants.changes import edited
from parity.mutants.mutant import Mutant, Place, output_of

MUTANTS = (
    Mutant(
        name="raw projection activated",
        description="a projection that reads the block's input is given its activation",
        expected=output_of("layer2.0.downsample.0"),
        subject="preact, raw, eval",
        change=partial(
            edited,
            preactivation.PreactivationBlock.__init__,
            ('"raw": False', '"raw": changes'),
        ),
    ),
    Mutant(
        name="activated projection raw",
        description="a projection that reads the block's activation is given its input",
        expected=output_of("layer2.0.downsample.0"),
        subject="preact, eval",
        change=partial(
            edited,
            preactivation.PreactivationBlock.__init__,
            ('"activated": changes', '"activated": False'),
        ),
    ),
    Mutant(
        name="first identity raw",
        description="the identity of a stage's first block is not activated",
        expected=output_of("layer1.0"),
        subject="preact, activated first, eval",
        change=partial(
            edited,
            preactivation.PreactivationBlock.__init__,
            ('"activated_first": changes or first', '"activated_first": changes'),
        ),
    ),
    Mutant(
        name="projection's norm left out",
        description="the sum takes a projection as it is, without the norm behind it",
        expected=Place("names", "layer2.0.downsample.1"),
        subject="resnet, eval",
        change=partial(
            edited,
            layers.Sequential.__call__,
            (
                "run_in_turn(self, x)",
                "run_in_turn([each for each in self if not isinstance(each, BatchNorm)], x)",
            ),
        ),
    ),
    Mutant(
        name="zeros on the other side",
        description="a shortcut's channels of zeros stand in front",
        expected=output_of("layer2.0.downsample"),
        subject="zero_pad_end, eval",
        change=partial(
            edited,
            shortcuts.make_shortcut,
            ("return PadShortcut(0, extra, stride)\n", "return PadShortcut(extra, 0, stride)\n"),
        ),
    ),
    Mutant(
        name="odd channel of zeros on the other side",
        description="of an odd number of channels of zeros the larger half stands in front",
        expected=output_of("layer2.0.downsample"),
        subject="zero_pad_both, eval",
        change=partial(
            edited,
            shortcuts.make_shortcut,
            (
                "(extra // 2, extra - extra // 2, stride)",
                "(extra - extra // 2, extra // 2, stride)",
            ),
        ),
    ),
    Mutant(
        name="shortcut reads odd pixels",
        description="a shortcut without parameters takes the pixels 1, 3, 5, ...",
        expected=output_of("layer2.0.downsample"),
        subject="zero_pad_end, eval",
        change=partial(
            edited,
            shortcuts.PadShortcut.__call__,
            (
                "x[:, :: self.stride, :: self.stride]",
                "x[:, self.stride - 1 :: self.stride, self.stride - 1 :: self.stride]",
            ),
        ),
    ),
    Mutant(
        name="averaged shortcut scaled",
        description="a shortcut sums over 2x2 pixels where it should average",
        expected=output_of("layer2.0.downsample"),
        subject="avg_pool_pad, eval",
        change=partial(
            edited,
            shortcuts.PadShortcut.__call__,
            ("avg_pool(x, self.stride) if", "self.stride**2 * avg_pool(x, self.stride) if"),
        ),
    ),
    Mutant(
        name="averaged shortcut not averaged",
        description="a shortcut that averages takes every second pixel",
        expected=output_of("layer2.0.downsample"),
        subject="avg_pool_pad, eval",
        change=partial(
            edited, shortcuts.make_shortcut, ("stride, average=True", "stride, average=False")
        ),
    ),
    Mutant(
        name="shortcut left out",
        description="a block adds nothing where it keeps the shape",
        expected=output_of("layer1.0"),
        subject="resnet, eval",
        change=partial(
            edited,
            resnet.ResidualBlock.__call__,
            ("y + (x if self.downsample is None", "y + (0 if self.downsample is None"),
        ),
    ),
)
