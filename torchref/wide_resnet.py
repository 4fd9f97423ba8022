"""Wide ResNet for CIFAR (Zagoruyko & Komodakis 2016, arXiv:1605.07146), pre-activation."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from torchref.checks import (
    blocks_from_depth,
    check_choice,
    check_classes,
    check_dropout,
    check_positive,
)
from torchref.initialize import Init, initialize, make_classifier
from torchref.preactivation import (
    BasicBlock,
    Block,
    Bottleneck,
    DropoutBefore,
    StrideOn,
    make_projection,
)

ProjectionInput = Literal["activated", "raw"]

STEM_WIDTH = 16
WIDTHS = (16, 32, 64)  # of the three stages, before widening
EXPANSION = 4  # output channels / unwidened stage width, of the bottleneck


class WideResNet(nn.Module):
    """A wide residual network: conv1, three stages (layer1.0.bn1, ...), bn1, fc.

    The upstream codes pool over a fixed 8x8 window at the end; here the pooling is global, which is
    the same for 32x32 images and works at every other size.

    Args:
        depth: 6n+4 with basic blocks, 9n+4 with bottlenecks, for n blocks a stage. It counts the
            stem, the blocks' convolutions and three projections, and not the classifier.
        widen_factor: k. Basic blocks have 16k, 32k and 64k channels in the three stages;
            bottlenecks have them inside, and 64, 128 and 256 outside.
        block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1).
        projection_input: what the 1x1 projection (no bias, no norm) reads where channels or
            resolution change: relu(bn1(x)), "activated", as the authors' code, or "raw", x itself.
        stride_on: the strided convolution of basic blocks: "conv1", or "conv2" as meliketoy has it.
            Bottlenecks always stride their 3x3 and take "conv2" only.
        conv_bias: biases on all convolutions, as meliketoy and weiaicunzai have them.
        dropout: rate of each block's dropout (0.3 in the paper's runs on CIFAR).
        dropout_before: "conv2" puts it before the block's last convolution, as the authors' code
            does; "bn2" right after the first convolution.
        final_norm_momentum: share of its old running statistics that the last norm keeps at each
            batch, so 1 minus PyTorch's ``momentum``; 0.1 for meliketoy.
        num_classes: number of logits; 0 leaves out the classifier.
        init: how weights are drawn, see ``torchref.initialize``.

    Raises:
        ValueError: for a configuration that is not valid; the message names the rule.
    """

    def __init__(
        self,
        *,
        depth: int = 28,
        widen_factor: int = 10,
        block: Block = "basic",
        projection_input: ProjectionInput = "activated",
        stride_on: StrideOn = "conv1",
        conv_bias: bool = False,
        dropout: float = 0.0,
        dropout_before: DropoutBefore = "conv2",
        final_norm_momentum: float = 0.9,
        num_classes: int = 10,
        init: Init = "fan_out_zero_bias",
    ) -> None:
        super().__init__()
        check_choice("block", block, get_args(Block))
        check_choice("projection_input", projection_input, get_args(ProjectionInput))
        check_choice("dropout_before", dropout_before, get_args(DropoutBefore))
        check_choice("stride_on", stride_on, get_args(StrideOn))
        check_positive(widen_factor=widen_factor)
        check_classes(num_classes)
        check_dropout(dropout)
        if not 0 <= final_norm_momentum < 1:
            raise ValueError(
                "final_norm_momentum is the share of the running statistics that is kept, at least "
                f"0 and below 1; got {final_norm_momentum!r}"
            )
        if block == "bottleneck" and stride_on != "conv2":
            raise ValueError(
                f"stride_on must be conv2, the 3x3, with bottleneck blocks; got {stride_on!r}"
            )
        period = 6 if block == "basic" else 9
        size = blocks_from_depth(f"WRN with {block} blocks", depth, period, offset=4)

        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 3, padding=1, bias=conv_bias)
        channels = STEM_WIDTH
        make_block = BasicBlock if block == "basic" else Bottleneck
        stages = []
        for width in WIDTHS:
            inner = width * widen_factor
            out_channels = inner if block == "basic" else EXPANSION * width
            blocks = []
            for index in range(size):
                stride = 2 if index == 0 and width != WIDTHS[0] else 1
                changes = stride != 1 or channels != out_channels
                made = make_block(
                    channels,
                    inner,
                    out_channels,
                    stride=stride,
                    stride_on=stride_on,
                    conv_bias=conv_bias,
                    shortcut_input=projection_input,
                    first=index == 0,
                    dropout=dropout,
                    dropout_before=dropout_before,
                    downsample=(
                        make_projection(channels, out_channels, stride, bias=conv_bias)
                        if changes
                        else None
                    ),
                )
                channels = out_channels
                blocks.append(made)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.bn1 = nn.BatchNorm2d(channels, momentum=1 - final_norm_momentum)
        self.fc = make_classifier(channels, num_classes)
        initialize(self, init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes), or what the classifier would read."""
        x = self.conv1(images)
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.relu(self.bn1(x))
        return self.fc(x.mean(dim=(2, 3)))
