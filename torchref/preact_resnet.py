"""Pre-activation ResNet (He et al. 2016, arXiv:1603.05027) in its CIFAR forms."""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import nn

from torchref.checks import check_choice, check_classes, check_positive
from torchref.initialize import Init, initialize, make_classifier
from torchref.preactivation import (
    BasicBlock,
    Block,
    Bottleneck,
    ShortcutInput,
    StrideOn,
    make_projection,
)
from torchref.shortcuts import make_shortcut

Shortcut = Literal["projection", "zero_pad_end"]

EXPANSION = {"basic": 1, "bottleneck": 4}  # output channels / stage width


class PreActResNet(nn.Module):
    """A pre-activation network: conv1, bn0 (the stem's), layer1.0.bn1, ..., bn1 (the last), fc.

    The upstream codes pool over a fixed window at the end; here the pooling is global, which is the
    same for 32x32 images and works at every other size.

    Args:
        block: "basic" (two 3x3) or "bottleneck" (1x1, 3x3, 1x1; output 4 times the stage's width).
        stage_sizes: number of blocks of each stage; stages after the first halve the resolution.
        widths: width of each stage.
        stem_width: output channels of the stem, a 3x3 convolution.
        num_classes: number of logits; 0 leaves out the classifier.
        shortcut: where channels or resolution change: "projection", a 1x1 convolution without norm,
            or "zero_pad_end" (``torchref.shortcuts``).
        shortcut_input: what the shortcut reads: x, "raw"; relu(bn1(x)) where shapes change,
            "activated"; or relu(bn1(x)) in each stage's first block even where the shape stays,
            "activated_first".
        stride_on: the strided convolution of a block, "conv1" or "conv2".
        conv_bias: biases on all convolutions.
        stem_norm: batch norm and ReLU after the stem.
        final_norm: batch norm and ReLU after the last block.
        init: how weights are drawn, see ``torchref.initialize``.

    Raises:
        ValueError: for a configuration that is not valid; the message names the rule.
    """

    def __init__(
        self,
        *,
        block: Block = "basic",
        stage_sizes: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        stem_width: int = 64,
        num_classes: int = 10,
        shortcut: Shortcut = "projection",
        shortcut_input: ShortcutInput = "activated",
        stride_on: StrideOn = "conv1",
        conv_bias: bool = False,
        stem_norm: bool = False,
        final_norm: bool = True,
        init: Init = "fan_out_zero_bias",
    ) -> None:
        super().__init__()
        check_choice("block", block, get_args(Block))
        check_choice("shortcut", shortcut, get_args(Shortcut))
        check_choice("shortcut_input", shortcut_input, get_args(ShortcutInput))
        check_choice("stride_on", stride_on, get_args(StrideOn))
        check_positive(stage_sizes=stage_sizes, widths=widths, stem_width=stem_width)
        check_classes(num_classes)
        if len(stage_sizes) != len(widths):
            raise ValueError(
                f"stage_sizes and widths must name as many stages; got {stage_sizes} and {widths}"
            )

        self.conv1 = nn.Conv2d(3, stem_width, 3, padding=1, bias=conv_bias)
        self.bn0 = nn.BatchNorm2d(stem_width) if stem_norm else None
        make_block = BasicBlock if block == "basic" else Bottleneck
        channels = stem_width
        self.stage_names = [f"layer{number}" for number in range(1, len(stage_sizes) + 1)]
        for name, size, width in zip(self.stage_names, stage_sizes, widths, strict=True):
            out_channels = EXPANSION[block] * width
            blocks = []
            for index in range(size):
                stride = 2 if index == 0 and name != "layer1" else 1
                downsample: nn.Module | None = None
                if stride != 1 or channels != out_channels:
                    downsample = (
                        make_projection(channels, out_channels, stride, bias=conv_bias)
                        if shortcut == "projection"
                        else make_shortcut(shortcut, channels, out_channels, stride)
                    )
                made = make_block(
                    channels,
                    width,
                    out_channels,
                    stride=stride,
                    stride_on=stride_on,
                    conv_bias=conv_bias,
                    shortcut_input=shortcut_input,
                    first=index == 0,
                    dropout=0.0,
                    dropout_before="conv2",
                    downsample=downsample,
                )
                channels = out_channels
                blocks.append(made)
            self.add_module(name, nn.Sequential(*blocks))
        self.bn1 = nn.BatchNorm2d(channels) if final_norm else None
        self.fc = make_classifier(channels, num_classes)
        initialize(self, init)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes), or what the classifier would read."""
        x = self.conv1(images)
        if self.bn0 is not None:
            x = F.relu(self.bn0(x))
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        if self.bn1 is not None:
            x = F.relu(self.bn1(x))
        return self.fc(x.mean(dim=(2, 3)))
