"""The pre-activation blocks (He et al. 2016, arXiv:1603.05027) of PreActResNet and WideResNet."""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

Block = Literal["basic", "bottleneck"]
ShortcutInput = Literal["raw", "activated", "activated_first"]
StrideOn = Literal["conv1", "conv2"]
DropoutBefore = Literal["conv2", "bn2"]


class PreActivationBlock(nn.Module):
    """What the two blocks share: where dropout sits and what the shortcut reads.

    ``dropout`` is None where its rate is 0, ``downsample`` for the identity.

    Args:
        shortcut_input: "raw": the shortcut reads the block's input; "activated": relu(bn1(input))
            where it is no identity; "activated_first": the same, and in the first block of a stage
            even the identity reads relu(bn1(input)).
        first: whether this is the first block of its stage.
        dropout: rate.
        dropout_before: "conv2": just before the last convolution; "bn2": just after the first.
    """

    downsample: nn.Module | None

    def __init__(
        self,
        *,
        shortcut_input: ShortcutInput,
        first: bool,
        dropout: float,
        dropout_before: DropoutBefore,
    ) -> None:
        super().__init__()
        self.shortcut_input = shortcut_input
        self.first = first
        self.dropout_before = dropout_before
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None

    def drop(self, x: torch.Tensor, *, before: DropoutBefore) -> torch.Tensor:
        """Apply dropout to ``x`` where the block has one and it sits here."""
        if self.dropout is None or before != self.dropout_before:
            return x
        return self.dropout(x)

    def shortcut(self, x: torch.Tensor, activated: torch.Tensor) -> torch.Tensor:
        """Return what is added, made from the block's input or from relu(bn1(input))."""
        if self.downsample is None:
            return activated if self.first and self.shortcut_input == "activated_first" else x
        return self.downsample(x if self.shortcut_input == "raw" else activated)


class BasicBlock(PreActivationBlock):
    """bn-relu-conv3x3, bn-relu-conv3x3 and the shortcut."""

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        stride: int,
        stride_on: StrideOn,
        conv_bias: bool,
        shortcut_input: ShortcutInput,
        first: bool,
        dropout: float,
        dropout_before: DropoutBefore,
        downsample: nn.Module | None,
    ) -> None:
        super().__init__(
            shortcut_input=shortcut_input,
            first=first,
            dropout=dropout,
            dropout_before=dropout_before,
        )
        strides = (stride, 1) if stride_on == "conv1" else (1, stride)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(
            in_channels, inner_channels, 3, strides[0], padding=1, bias=conv_bias
        )
        self.bn2 = nn.BatchNorm2d(inner_channels)
        self.conv2 = nn.Conv2d(
            inner_channels, out_channels, 3, strides[1], padding=1, bias=conv_bias
        )
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        activated = F.relu(self.bn1(x))
        out = self.drop(self.conv1(activated), before="bn2")
        out = self.drop(F.relu(self.bn2(out)), before="conv2")
        return self.conv2(out) + self.shortcut(x, activated)


class Bottleneck(PreActivationBlock):
    """bn-relu-conv1x1, bn-relu-conv3x3, bn-relu-conv1x1 and the shortcut."""

    def __init__(
        self,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        stride: int,
        stride_on: StrideOn,
        conv_bias: bool,
        shortcut_input: ShortcutInput,
        first: bool,
        dropout: float,
        dropout_before: DropoutBefore,
        downsample: nn.Module | None,
    ) -> None:
        super().__init__(
            shortcut_input=shortcut_input,
            first=first,
            dropout=dropout,
            dropout_before=dropout_before,
        )
        strides = (stride, 1) if stride_on == "conv1" else (1, stride)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, inner_channels, 1, strides[0], bias=conv_bias)
        self.bn2 = nn.BatchNorm2d(inner_channels)
        self.conv2 = nn.Conv2d(
            inner_channels, inner_channels, 3, strides[1], padding=1, bias=conv_bias
        )
        self.bn3 = nn.BatchNorm2d(inner_channels)
        self.conv3 = nn.Conv2d(inner_channels, out_channels, 1, bias=conv_bias)
        self.downsample = downsample

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        activated = F.relu(self.bn1(x))
        out = self.drop(self.conv1(activated), before="bn2")
        out = self.conv2(F.relu(self.bn2(out)))
        out = self.drop(F.relu(self.bn3(out)), before="conv2")
        return self.conv3(out) + self.shortcut(x, activated)


def make_projection(
    in_channels: int, out_channels: int, stride: int, *, bias: bool
) -> nn.Sequential:
    """Build the 1x1 convolution, without norm, that matches a changed shape."""
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias))
