"""Mistakes in how layers are put together."""

from functools import partial

from flaxnets import densenet, layers, preact_resnet, preactivation, resnet, shortcuts, wide_resnet
from parity.mutants.changes import edited
from parity.mutants.mutant import REFUSAL, Mutant, Place


def _output(layer: str) -> Place:
    """Of a layer that is right by itself, or of a block: what was handed to it is wrong."""
    return Place("layers", layer)


MUTANTS = (
    Mutant(
        name="stride on the wrong convolution",
        description="a basic block's second convolution halves the map, not its first",
        expected=Place("isolated layers", "layer2.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            resnet.ResidualBlock.__init__,
            (
                "[(in_channels, width, 3, stride, 1), (width, width, 3, 1, 1)]",
                "[(in_channels, width, 3, 1, 1), (width, width, 3, stride, 1)]",
            ),
        ),
    ),
    Mutant(
        name="bottleneck's stride on its 1x1 convolution",
        description="as in the paper's first version and in Caffe",
        expected=Place("isolated layers", "layer2.0.conv1"),
        subject="bottleneck, eval",
        change=partial(
            edited,
            resnet.ResidualBlock.__init__,
            ("(in_channels, inner, 1, 1, 1)", "(in_channels, inner, 1, stride, 1)"),
            ("(inner, inner, 3, stride, config.groups)", "(inner, inner, 3, 1, config.groups)"),
        ),
    ),
    Mutant(
        name="pre-activated block's stride on the wrong convolution",
        description="the second convolution halves the map, not the first",
        expected=Place("isolated layers", "layer2.0.conv1"),
        subject="preact, eval",
        change=partial(
            edited,
            preactivation.PreactivationBlock.__init__,
            ("if name == stride_on else", "if name != stride_on else"),
        ),
    ),
    Mutant(
        name="stride forgotten",
        description="the shortcut halves the map, the block's convolutions don't",
        expected=Place("isolated layers", "layer2.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited, resnet.ResidualBlock.__init__, ("width, 3, stride, 1)", "width, 3, 1, 1)")
        ),
    ),
    Mutant(
        name="ReLU missing",
        description="a residual block has no ReLU between its convolutions",
        expected=_output("layer1.0.conv2"),
        subject="resnet, eval",
        change=partial(
            edited, resnet.ResidualBlock.__call__, ("if index < self.depth:", "if False:")
        ),
    ),
    Mutant(
        name="stem's ReLU missing",
        description="the stem ends with its norm",
        expected=_output("layer1.0.conv1"),
        subject="resnet, eval",
        change=partial(
            edited,
            resnet.ResNet.features,
            ("relu(self.bn1(self.conv1(x)))", "self.bn1(self.conv1(x))"),
        ),
    ),
    Mutant(
        name="ReLU before the addition",
        description="a residual block's branch is activated, the sum is not",
        expected=_output("layer1.0"),
        subject="resnet, eval",
        change=partial(
            edited,
            resnet.ResidualBlock.__call__,
            (
                "return relu(y + (x if self.downsample is None else self.downsample(x)))",
                "return relu(y) + (x if self.downsample is None else self.downsample(x))",
            ),
        ),
    ),
    Mutant(
        name="ReLU after the addition missing",
        description="the sum that ends a residual block is not activated",
        expected=_output("layer1.0"),
        subject="resnet, eval",
        change=partial(
            edited,
            resnet.ResidualBlock.__call__,
            ("return relu(y + (", "return (y + ("),
        ),
    ),
    Mutant(
        name="one ReLU too many",
        description="a pre-activated block activates its sum as a plain block does",
        expected=_output("layer1.0"),
        subject="preact, eval",
        change=partial(
            edited,
            preactivation.PreactivationBlock.__call__,
            (
                "return y + (x if self.downsample is None else self.downsample(x))",
                "return relu(y + (x if self.downsample is None else self.downsample(x)))",
            ),
        ),
    ),
    Mutant(
        name="last ReLU missing",
        description="a WRN's last norm is not followed by a ReLU",
        expected=_output("fc"),
        subject="wrn, eval",
        change=partial(
            edited,
            wide_resnet.WideResNet.features,
            ("global_avg_pool(relu(self.bn1(x)))", "global_avg_pool(self.bn1(x))"),
        ),
    ),
    Mutant(
        name="last norm missing",
        description="a WRN pools what its last block gives",
        expected=Place("names", "bn1"),
        subject="wrn, eval",
        change=partial(
            edited,
            wide_resnet.WideResNet.features,
            ("global_avg_pool(relu(self.bn1(x)))", "global_avg_pool(relu(x))"),
        ),
    ),
    Mutant(
        name="last norm not made",
        description="a pre-activation ResNet has no last norm",
        expected=Place(REFUSAL, "bn1"),
        subject="preact, eval",
        change=partial(
            edited,
            preact_resnet.PreActResNet.__init__,
            ("if config.final_norm else None", "if False else None"),
        ),
    ),
    Mutant(
        name="norm after the ReLU",
        description="a dense layer activates first and normalises then",
        expected=_output("denseblock1.denselayer1.norm2"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.DenseLayer.__call__,
            ("relu(self.norm2(y))", "self.norm2(relu(y))"),
        ),
    ),
    Mutant(
        name="raw projection activated",
        description="a projection that reads the block's input is given its activation",
        expected=_output("layer2.0.downsample.0"),
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
        expected=_output("layer2.0.downsample.0"),
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
        expected=_output("layer1.0"),
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
            ("x = layer(x)", "x = x if isinstance(layer, BatchNorm) else layer(x)"),
        ),
    ),
    Mutant(
        name="zeros on the other side",
        description="a shortcut's channels of zeros stand in front",
        expected=_output("layer2.0.downsample"),
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
        expected=_output("layer2.0.downsample"),
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
        expected=_output("layer2.0.downsample"),
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
        expected=_output("layer2.0.downsample"),
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
        expected=_output("layer2.0.downsample"),
        subject="avg_pool_pad, eval",
        change=partial(
            edited, shortcuts.make_shortcut, ("stride, average=True", "stride, average=False")
        ),
    ),
    Mutant(
        name="shortcut left out",
        description="a block adds nothing where it keeps the shape",
        expected=_output("layer1.0"),
        subject="resnet, eval",
        change=partial(
            edited,
            resnet.ResidualBlock.__call__,
            ("y + (x if self.downsample is None", "y + (0 if self.downsample is None"),
        ),
    ),
    Mutant(
        name="concatenation reversed",
        description="a dense layer's new maps stand in front of those that it read",
        expected=_output("denseblock1.denselayer2.norm1"),
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
        expected=_output("denseblock1.denselayer2.norm1"),
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
        expected=_output("transition1.conv"),
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
        expected=_output("classifier"),
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
        expected=_output("transition1.conv"),
        subject="densenet, eval",
        change=partial(
            edited,
            densenet.Transition.__call__,
            ("self.conv(relu(y) if self.relu else y)", "self.conv(avg_pool(relu(y), 2))"),
            ("return avg_pool(y, 2)", "return y"),
        ),
    ),
    Mutant(
        name="group width",
        description="the width of a bottleneck is not multiplied by the number of groups",
        expected=Place(REFUSAL, "layer1.0.conv1.weight"),
        subject="groups, eval",
        change=partial(
            edited,
            resnet.ResNetConfig.inner_width,
            (
                "int(width * self.bottleneck_width) * self.groups",
                "int(width * self.bottleneck_width)",
            ),
        ),
    ),
    Mutant(
        name="convolution without its bias",
        description="convolutions are made without the bias that the checkpoint has",
        expected=Place(REFUSAL, "conv1.bias"),
        subject="resnet with biases, eval",
        change=partial(
            edited,
            resnet.ResNet.__init__,
            ("stride=stride, bias=config.conv_bias", "stride=stride"),
        ),
    ),
    Mutant(
        name="blocks of a stage share one stride",
        description="in a later stage every block's first convolution halves the map",
        expected=Place("isolated layers", "layer2.1.conv1"),
        subject="two blocks, eval",
        change=partial(
            edited,
            resnet.ResidualBlock.__init__,
            (
                "[(in_channels, width, 3, stride, 1)",
                "[(in_channels, width, 3, 1 if width == config.widths[0] else 2, 1)",
            ),
        ),
    ),
)
