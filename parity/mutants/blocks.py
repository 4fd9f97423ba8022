"""Mistakes in residual blocks: strides, activations, norms, widths."""

from functools import partial

from flaxnets import preact_resnet, preactivation, resnet, wide_resnet
from parity.mutants.changes import edited
from parity.mutants.mutant import REFUSAL, Mutant, Place, output_of

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
        expected=output_of("layer1.0.conv2"),
        subject="resnet, eval",
        change=partial(
            edited, resnet.ResidualBlock.__call__, ("if index < self.depth:", "if False:")
        ),
    ),
    Mutant(
        name="stem's ReLU missing",
        description="the stem ends with its norm",
        expected=output_of("layer1.0.conv1"),
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
        expected=output_of("layer1.0"),
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
        expected=output_of("layer1.0"),
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
        expected=output_of("layer1.0"),
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
        expected=output_of("fc"),
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
