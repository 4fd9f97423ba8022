"""ResNet (He et al. 2015, arXiv:1512.03385) in its ImageNet and CIFAR forms."""

from collections.abc import Sequence
from typing import Any, Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from torchref.checks import check_choice, check_classes, check_dropout, check_positive
from torchref.initialize import Init, initialize, make_classifier
from torchref.shortcuts import Shortcut, make_shortcut

Block = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "cifar"]
Project = Literal["on_change", "first_of_stage", "every_block"]

EXPANSION = {"basic": 1, "bottleneck": 4}  # output channels / stage width


class BasicBlock(nn.Module):
    """Two 3x3 convolutions, the first with the stride, and the shortcut; ReLU after the sum.

    ``downsample`` is None for the identity and ``dropout`` (after ``bn2``) where its rate is 0.
    """

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        stride: int,
        conv_bias: bool,
        dropout: float,
        downsample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 3, stride, padding=1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.conv2 = nn.Conv2d(inner_channels, out_channels, 3, padding=1, bias=conv_bias)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.dropout is not None:
            out = self.dropout(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut)


class Bottleneck(nn.Module):
    """1x1, 3x3 and 1x1 convolutions and the shortcut; ReLU after the sum.

    The stride sits on the 3x3 ("v1.5", as torchvision), not on the first 1x1 as in the paper.
    ``downsample`` is None for the identity and ``dropout`` (after ``bn3``) where its rate is 0.
    """

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        stride: int,
        groups: int,
        conv_bias: bool,
        dropout: float,
        downsample: nn.Module | None,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(inner_channels)
        self.conv2 = nn.Conv2d(
            inner_channels,
            inner_channels,
            3,
            stride,
            padding=1,
            groups=groups,
            bias=conv_bias,
        )
        self.bn2 = nn.BatchNorm2d(inner_channels)
        self.conv3 = nn.Conv2d(inner_channels, out_channels, 1, bias=conv_bias)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = F.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.dropout is not None:
            out = self.dropout(out)
        shortcut = x if self.downsample is None else self.downsample(x)
        return F.relu(out + shortcut)


class ResNet(nn.Module):
    """A residual network with torchvision's module names (conv1, bn1, layer1.0.conv1, ..., fc).

    The upstream CIFAR codes and pytorch-book pool over a fixed window (8x8, 4x4, 7x7); here the
    last pooling is global, which is the same at their input size and works at every other.

    Args:
        block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1; output 4 times the stage's width).
        stage_sizes: number of blocks of each stage; stages after the first halve the resolution.
        widths: width of each stage.
        stem: "imagenet" (7x7 stride 2, then 3x3 max pooling of stride 2) or "cifar" (3x3).
        stem_width: output channels of the stem.
        num_classes: number of logits; 0 leaves out the classifier.
        shortcut: what replaces the identity where shapes change, see ``torchref.shortcuts``.
        project: where it does: "on_change" of shape only, "first_of_stage" even where the shape
            stays (the first edition of pytorch-book), or in "every_block" (the paper's option C).
        conv_bias: biases for the convolutions of the stem and the blocks, as KellerJordan has them.
            The shortcut's own bias is a matter of its kind.
        bottleneck_width: factor on the inner width of bottlenecks (2 for wide_resnet50_2), or on
            that of each group.
        groups: groups of the bottlenecks' 3x3 convolution (32 for resnext50_32x4d, whose factor is
            4 / 64).
        dropout: rate of the dropout before the addition in the first block of each stage, the only
            blocks where KellerJordan has one.
        init: how weights are drawn, see ``torchref.initialize``.

    Raises:
        ValueError: for a configuration that is not valid; the message names the rule.
    """

    def __init__(
        self,
        *,
        block: Block = "basic",
        stage_sizes: Sequence[int] = (3, 4, 6, 3),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem: Stem = "imagenet",
        stem_width: int = 64,
        num_classes: int = 1000,
        shortcut: Shortcut = "projection",
        project: Project = "on_change",
        conv_bias: bool = False,
        bottleneck_width: float = 1.0,
        groups: int = 1,
        dropout: float = 0.0,
        init: Init = "fan_out",
    ) -> None:
        super().__init__()
        check_choice("block", block, get_args(Block))
        check_choice("stem", stem, get_args(Stem))
        check_choice("shortcut", shortcut, get_args(Shortcut))
        check_choice("project", project, get_args(Project))
        check_positive(stem_width=stem_width, groups=groups)
        check_classes(num_classes)
        check_dropout(dropout)
        _check_stages(block, stage_sizes, widths, bottleneck_width, groups)

        self.stem = stem
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=conv_bias)
        else:
            self.conv1 = nn.Conv2d(3, stem_width, 3, padding=1, bias=conv_bias)
        self.bn1 = nn.BatchNorm2d(stem_width)

        channels = stem_width
        self.stage_names = [f"layer{number}" for number in range(1, len(stage_sizes) + 1)]
        for name, size, width in zip(self.stage_names, stage_sizes, widths, strict=True):
            out_channels = EXPANSION[block] * width
            blocks: list[nn.Module] = []
            for index in range(size):
                first = index == 0
                stride = 2 if first and name != "layer1" else 1
                changes = stride != 1 or channels != out_channels
                needed = changes or project == "every_block"
                if needed or (project == "first_of_stage" and first):
                    downsample = make_shortcut(shortcut, channels, out_channels, stride)
                else:
                    downsample = None
                options: dict[str, Any] = {
                    "stride": stride,
                    "conv_bias": conv_bias,
                    "dropout": dropout if first else 0.0,
                    "downsample": downsample,
                }
                if block == "basic":
                    blocks.append(BasicBlock(channels, width, out_channels, **options))
                else:
                    inner = groups * int(width * bottleneck_width)
                    blocks.append(
                        Bottleneck(channels, inner, out_channels, groups=groups, **options)
                    )
                channels = out_channels
            self.add_module(name, nn.Sequential(*blocks))
        self.fc = make_classifier(channels, num_classes)
        initialize(self, init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes), or what the classifier would read."""
        x = F.relu(self.bn1(self.conv1(images)))
        if self.stem == "imagenet":
            x = F.max_pool2d(x, 3, stride=2, padding=1)
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        return self.fc(x.mean(dim=(2, 3)))


def _check_stages(
    block: Block,
    stage_sizes: Sequence[int],
    widths: Sequence[int],
    bottleneck_width: float,
    groups: int,
) -> None:
    check_positive(stage_sizes=stage_sizes, widths=widths)
    if len(stage_sizes) != len(widths):
        raise ValueError(
            f"stage_sizes and widths must name as many stages; got {stage_sizes} and {widths}"
        )
    if block == "basic" and bottleneck_width != 1:
        raise ValueError(
            "bottleneck_width must be 1 with basic blocks, which have no inner width; "
            f"got {bottleneck_width!r}"
        )
    if block == "basic" and groups != 1:
        raise ValueError(
            f"groups must be 1 with basic blocks, which have no grouped convolution; got {groups!r}"
        )
    if min(widths) * bottleneck_width < 1:
        raise ValueError(
            f"bottleneck_width must leave at least one of {min(widths)} channels; "
            f"got {bottleneck_width!r}"
        )
