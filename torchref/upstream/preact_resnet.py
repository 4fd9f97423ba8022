"""Pre-activation ResNets (He et al. 2016, arXiv:1603.05027) as two code bases name them.

Neither has the norm and ReLU after the last addition that He 2016 describes.
"""

import functools
from collections.abc import Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from torchref.upstream.stages import conv1x1, conv3x3, make_stages

Kind = Literal["basic", "bottleneck"]


class KuangliuBlock(nn.Module):
    """bn1, conv1, bn2, conv2[, bn3, conv3]; ``shortcut.0`` reads relu(bn1(x)).

    A bottleneck's stride is on its 3x3 conv2. Without a projection there is no ``shortcut``.
    """

    bn1: nn.BatchNorm2d
    conv1: nn.Conv2d

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, kind: Kind) -> None:
        super().__init__()
        inner = out_channels if kind == "basic" else out_channels // 4
        if kind == "basic":
            convolutions = [conv3x3(in_channels, inner, stride), conv3x3(inner, inner)]
        else:
            convolutions = [
                conv1x1(in_channels, inner),
                conv3x3(inner, inner, stride),
                conv1x1(inner, out_channels),
            ]
        self.depth = len(convolutions)
        for index, convolution in enumerate(convolutions, start=1):
            self.add_module(f"bn{index}", nn.BatchNorm2d(convolution.in_channels))
            self.add_module(f"conv{index}", convolution)
        if stride != 1 or in_channels != out_channels:
            self.shortcut = nn.Sequential(conv1x1(in_channels, out_channels, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        activated = F.relu(self.bn1(x))
        shortcut = self.shortcut(activated) if hasattr(self, "shortcut") else x
        out = self.conv1(activated)
        for index in range(2, self.depth + 1):
            out = getattr(self, f"conv{index}")(F.relu(getattr(self, f"bn{index}")(out)))
        return out + shortcut


class Kuangliu(nn.Module):
    """kuangliu/pytorch-cifar, preact_resnet.py: conv1, layer1 to layer4, linear."""

    def __init__(
        self,
        kind: Kind = "basic",
        *,
        sizes: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int = 10,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, widths[0])
        channels = [width * (1 if kind == "basic" else 4) for width in widths]
        make_block = functools.partial(KuangliuBlock, kind=kind)
        stages = make_stages(make_block, widths[0], channels, sizes)
        self.stages = [f"layer{number}" for number in range(1, len(stages) + 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)
        self.linear = nn.Linear(channels[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.conv1(images)
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.linear(x.mean(dim=(2, 3)))


class WeiaicunzaiBlock(nn.Module):
    """residual (a Sequential, the stride on its first convolution) and a bare biased shortcut.

    The shortcut reads the block's input; for the identity it is an empty Sequential.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, kind: Kind) -> None:
        super().__init__()
        inner = out_channels if kind == "basic" else out_channels // 4
        if kind == "basic":
            convolutions = [
                conv3x3(in_channels, inner, stride, bias=True),
                conv3x3(inner, inner, bias=True),
            ]
        else:
            convolutions = [
                conv1x1(in_channels, inner, stride, bias=True),
                conv3x3(inner, inner, bias=True),
                conv1x1(inner, out_channels, bias=True),
            ]
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [nn.BatchNorm2d(convolution.in_channels), nn.ReLU(), convolution]
        self.residual = nn.Sequential(*layers)
        self.shortcut: nn.Module = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = conv1x1(in_channels, out_channels, stride, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        return self.residual(x) + self.shortcut(x)


class Weiaicunzai(nn.Module):
    """weiaicunzai/pytorch-cifar100, preactresnet.py: pre (with norm and ReLU), stage1 to stage4,
    linear; biases on all convolutions.
    """

    def __init__(
        self,
        kind: Kind = "basic",
        *,
        sizes: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int = 100,
    ) -> None:
        super().__init__()
        self.pre = nn.Sequential(
            conv3x3(3, widths[0], bias=True), nn.BatchNorm2d(widths[0]), nn.ReLU()
        )
        channels = [width * (1 if kind == "basic" else 4) for width in widths]
        make_block = functools.partial(WeiaicunzaiBlock, kind=kind)
        stages = make_stages(make_block, widths[0], channels, sizes)
        self.stages = [f"stage{number}" for number in range(1, len(stages) + 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)
        self.linear = nn.Linear(channels[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.pre(images)
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.linear(x.mean(dim=(2, 3)))
