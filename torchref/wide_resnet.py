"""Wide ResNet for CIFAR (Zagoruyko & Komodakis 2016, arXiv:1605.07146), pre-activation."""

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from torchref.checks import blocks_from_depth, check_choice, check_dropout, check_positive
from torchref.initialize import Init, initialize

Block = Literal["basic", "bottleneck"]
ProjectionInput = Literal["activated", "raw"]
DropoutBefore = Literal["conv2", "bn2"]

STEM_WIDTH = 16
WIDTHS = (16, 32, 64)  # of the three stages, before widening
EXPANSION = 4  # output channels / unwidened stage width, of the bottleneck


class PreActivationBlock(nn.Module):
    """What the two blocks share: where dropout sits and what the shortcut reads."""

    out_channels: int
    dropout: nn.Dropout | None
    downsample: nn.Sequential | None

    def __init__(self, projection_input: ProjectionInput, dropout_before: DropoutBefore) -> None:
        super().__init__()
        self.projection_input = projection_input
        self.dropout_before = dropout_before

    def drop(self, x: torch.Tensor, *, before: DropoutBefore) -> torch.Tensor:
        """Apply dropout to ``x`` where the block has one and it sits here."""
        if self.dropout is None or before != self.dropout_before:
            return x
        return self.dropout(x)

    def shortcut(self, x: torch.Tensor, activated: torch.Tensor) -> torch.Tensor:
        """Return the input itself, or a projection of it (raw) or of relu(bn1(input))."""
        if self.downsample is None:
            return x
        return self.downsample(x if self.projection_input == "raw" else activated)


class BasicBlock(PreActivationBlock):
    """bn-relu-conv3x3, bn-relu-conv3x3 and the shortcut; the first convolution has the stride.

    ``dropout`` is None where its rate is 0, ``downsample`` for the identity.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        widen_factor: int,
        *,
        stride: int,
        projection_input: ProjectionInput,
        dropout: float,
        dropout_before: DropoutBefore,
    ) -> None:
        super().__init__(projection_input, dropout_before)
        self.out_channels = width * widen_factor
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, self.out_channels, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(self.out_channels)
        self.conv2 = nn.Conv2d(self.out_channels, self.out_channels, 3, padding=1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None
        self.downsample = make_projection(in_channels, self.out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        activated = F.relu(self.bn1(x))
        out = self.drop(self.conv1(activated), before="bn2")
        out = self.drop(F.relu(self.bn2(out)), before="conv2")
        return self.conv2(out) + self.shortcut(x, activated)


class Bottleneck(PreActivationBlock):
    """bn-relu-conv1x1, bn-relu-conv3x3 (with the stride), bn-relu-conv1x1 and the shortcut.

    Only the inner width is widened, as in WRN-50-2: width * widen_factor inside, 4 * width outside.
    ``dropout`` is None where its rate is 0, ``downsample`` for the identity.
    """

    def __init__(
        self,
        in_channels: int,
        width: int,
        widen_factor: int,
        *,
        stride: int,
        projection_input: ProjectionInput,
        dropout: float,
        dropout_before: DropoutBefore,
    ) -> None:
        super().__init__(projection_input, dropout_before)
        inner = width * widen_factor
        self.out_channels = EXPANSION * width
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(inner)
        self.conv2 = nn.Conv2d(inner, inner, 3, stride, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(inner)
        self.conv3 = nn.Conv2d(inner, self.out_channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None
        self.downsample = make_projection(in_channels, self.out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        activated = F.relu(self.bn1(x))
        out = self.drop(self.conv1(activated), before="bn2")
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.drop(F.relu(self.bn3(out)), before="conv2")
        return self.conv3(out) + self.shortcut(x, activated)


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
        dropout: rate of each block's dropout (0.3 in the paper's runs on CIFAR).
        dropout_before: "conv2" puts it before the block's last convolution, as the authors' code
            does; "bn2" right after the first convolution.
        num_classes: number of logits.
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
        dropout: float = 0.0,
        dropout_before: DropoutBefore = "conv2",
        num_classes: int = 10,
        init: Init = "fan_out_zero_bias",
    ) -> None:
        super().__init__()
        check_choice("block", block, get_args(Block))
        check_choice("projection_input", projection_input, get_args(ProjectionInput))
        check_choice("dropout_before", dropout_before, get_args(DropoutBefore))
        check_positive(widen_factor=widen_factor, num_classes=num_classes)
        check_dropout(dropout)
        period = 6 if block == "basic" else 9
        size = blocks_from_depth(f"WRN with {block} blocks", depth, period, offset=4)

        self.conv1 = nn.Conv2d(3, STEM_WIDTH, 3, padding=1, bias=False)
        channels = STEM_WIDTH
        make_block = BasicBlock if block == "basic" else Bottleneck
        stages = []
        for width in WIDTHS:
            blocks = []
            for index in range(size):
                stride = 2 if index == 0 and width != WIDTHS[0] else 1
                made = make_block(
                    channels,
                    width,
                    widen_factor,
                    stride=stride,
                    projection_input=projection_input,
                    dropout=dropout,
                    dropout_before=dropout_before,
                )
                channels = made.out_channels
                blocks.append(made)
            stages.append(nn.Sequential(*blocks))
        self.layer1, self.layer2, self.layer3 = stages
        self.bn1 = nn.BatchNorm2d(channels)
        self.fc = nn.Linear(channels, num_classes)
        initialize(self, init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.conv1(images)
        x = self.layer3(self.layer2(self.layer1(x)))
        x = F.relu(self.bn1(x))
        return self.fc(x.mean(dim=(2, 3)))


def make_projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential | None:
    """Build the 1x1 convolution that matches a changed shape, or None where it is unchanged."""
    if stride == 1 and in_channels == out_channels:
        return None
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False))
