"""DenseNet (Huang et al. 2017, arXiv:1608.06993) in its CIFAR and ImageNet forms."""

import math
from collections.abc import Sequence
from typing import Literal, get_args

import torch
import torch.nn.functional as F
import torchvision
from torch import nn

from torchref.checks import (
    blocks_from_depth,
    check_choice,
    check_classes,
    check_dropout,
    check_positive,
)
from torchref.initialize import Init, initialize, make_classifier

Stem = Literal["cifar", "imagenet"]
Concat = Literal["old_new", "new_old"]
DropoutAfter = Literal["every_conv", "last_conv"]


class DenseLayer(nn.Module):
    """norm-relu-conv3x3, or norm-relu-conv1x1-norm-relu-conv3x3 with a bottleneck of 4k channels.

    Where its rate is above 0 dropout follows each convolution, or the last one only.
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        *,
        bottleneck: bool,
        dropout: float,
        dropout_after: DropoutAfter,
    ) -> None:
        super().__init__()
        between = dropout > 0 and (not bottleneck or dropout_after == "every_conv")
        self.bottleneck = bottleneck
        self.norm1 = nn.BatchNorm2d(in_channels)
        if bottleneck:
            inner = 4 * growth_rate
            self.conv1 = nn.Conv2d(in_channels, inner, 1, bias=False)
            self.norm2 = nn.BatchNorm2d(inner)
            self.conv2 = nn.Conv2d(inner, growth_rate, 3, padding=1, bias=False)
            self.dropout2 = nn.Dropout(dropout) if dropout > 0 else None
        else:
            self.conv1 = nn.Conv2d(in_channels, growth_rate, 3, padding=1, bias=False)
        self.dropout1 = nn.Dropout(dropout) if between else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> the new features alone, (N, growth_rate, H, W)."""
        x = self.conv1(F.relu(self.norm1(x)))
        if self.dropout1 is not None:
            x = self.dropout1(x)
        if self.bottleneck:
            x = self.conv2(F.relu(self.norm2(x)))
            if self.dropout2 is not None:
                x = self.dropout2(x)
        return x


class DenseBlock(nn.Module):
    """Layers that each read all features before them; new ones come after, or before, the old."""

    def __init__(
        self,
        size: int,
        in_channels: int,
        growth_rate: int,
        *,
        bottleneck: bool,
        concat: Concat,
        dropout: float,
        dropout_after: DropoutAfter,
    ) -> None:
        super().__init__()
        self.concat = concat
        for index in range(size):
            layer = DenseLayer(
                in_channels + index * growth_rate,
                growth_rate,
                bottleneck=bottleneck,
                dropout=dropout,
                dropout_after=dropout_after,
            )
            self.add_module(f"denselayer{index + 1}", layer)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, in_channels + size * growth_rate, H, W)."""
        for layer in self.children():
            new = layer(x)
            x = torch.cat([x, new] if self.concat == "old_new" else [new, x], dim=1)
        return x


class Transition(nn.Module):
    """norm-relu-conv1x1 to fewer channels, dropout, and 2x2 average pooling; relu is optional."""

    def __init__(self, in_channels: int, out_channels: int, *, relu: bool, dropout: float) -> None:
        super().__init__()
        self.relu = relu
        self.norm = nn.BatchNorm2d(in_channels)
        self.conv = nn.Conv2d(in_channels, out_channels, 1, bias=False)
        self.dropout = nn.Dropout(dropout) if dropout > 0 else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H // 2, W // 2)."""
        x = self.norm(x)
        x = self.conv(F.relu(x) if self.relu else x)
        if self.dropout is not None:
            x = self.dropout(x)
        return F.avg_pool2d(x, 2)


class DenseNet(nn.Module):
    """A densely connected network with torchvision's module names, less their "features." prefix.

    The names are conv0, denseblock1.denselayer1.norm1, ..., transition1.conv, norm5, classifier;
    the last norm is norm5 whatever the number of blocks. The upstream CIFAR codes pool over a fixed
    8x8 window at the end; here the pooling is global, which is the same for 32x32 images and works
    at every other size.

    Args:
        block_sizes: number of dense layers of each block; a transition stands between two blocks.
        growth_rate: channels that each layer adds, k in the paper.
        stem_width: output channels of the stem. The paper has 16 for plain DenseNets and 2k with
            bottleneck or compression.
        bottleneck: each 3x3 convolution is preceded by a 1x1 to 4k channels (the B of DenseNet-BC).
        compression: theta, the fraction of channels that a transition keeps (the C of DenseNet-BC).
        concat: "old_new": a block's new features come after the old ones; "new_old": before them,
            as kuangliu has them.
        transition_relu: ReLU between norm and convolution of a transition; weiaicunzai has none.
        dropout: rate of the dropout.
        dropout_after: "every_conv" but the stem; or "last_conv" of each dense layer only, as
            torchvision's ``drop_rate``.
        stem: "cifar" (3x3 convolution alone) or "imagenet" (7x7 stride 2, norm, ReLU, then 3x3 max
            pooling of stride 2).
        num_classes: number of logits; 0 leaves out the classifier.
        init: how weights are drawn, see ``torchref.initialize``.

    Raises:
        ValueError: for a configuration that is not valid; the message names the rule.
    """

    def __init__(
        self,
        *,
        block_sizes: Sequence[int] = (16, 16, 16),
        growth_rate: int = 12,
        stem_width: int = 24,
        bottleneck: bool = True,
        compression: float = 0.5,
        concat: Concat = "old_new",
        transition_relu: bool = True,
        dropout: float = 0.0,
        dropout_after: DropoutAfter = "every_conv",
        stem: Stem = "cifar",
        num_classes: int = 10,
        init: Init = "fan_out_zero_bias",
    ) -> None:
        super().__init__()
        check_choice("stem", stem, get_args(Stem))
        check_choice("concat", concat, get_args(Concat))
        check_choice("dropout_after", dropout_after, get_args(DropoutAfter))
        check_positive(block_sizes=block_sizes, growth_rate=growth_rate, stem_width=stem_width)
        check_classes(num_classes)
        check_dropout(dropout)

        self.stem = stem
        if stem == "imagenet":
            self.conv0 = nn.Conv2d(3, stem_width, 7, stride=2, padding=3, bias=False)
            self.norm0 = nn.BatchNorm2d(stem_width)
        else:
            self.conv0 = nn.Conv2d(3, stem_width, 3, padding=1, bias=False)

        channels = stem_width
        self.stage_names: list[str] = []
        for number, size in enumerate(block_sizes, start=1):
            if number > 1:
                kept = compressed_channels(channels, compression)
                transition = Transition(
                    channels,
                    kept,
                    relu=transition_relu,
                    dropout=dropout if dropout_after == "every_conv" else 0.0,
                )
                self._add_stage(f"transition{number - 1}", transition)
                channels = kept
            block = DenseBlock(
                size,
                channels,
                growth_rate,
                bottleneck=bottleneck,
                concat=concat,
                dropout=dropout,
                dropout_after=dropout_after,
            )
            self._add_stage(f"denseblock{number}", block)
            channels += size * growth_rate
        self.norm5 = nn.BatchNorm2d(channels)
        self.classifier = make_classifier(channels, num_classes)
        initialize(self, init)

    def _add_stage(self, name: str, stage: nn.Module) -> None:
        self.stage_names.append(name)
        self.add_module(name, stage)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes), or what the classifier would read."""
        x = self.conv0(images)
        if self.stem == "imagenet":
            x = F.max_pool2d(F.relu(self.norm0(x)), 3, stride=2, padding=1)
        for name in self.stage_names:
            x = self.get_submodule(name)(x)
        x = F.relu(self.norm5(x))
        return self.classifier(x.mean(dim=(2, 3)))


class TorchvisionDenseNet(nn.Module):
    """torchvision's own DenseNet, its modules named without the "features." before them.

    Everything is torchvision's, its initial weights included, but the four lines of ``forward``,
    which torchvision writes around its ``features``.

    Args:
        name: densenet121, densenet161, densenet169 or densenet201.
        num_classes: number of logits.
    """

    def __init__(self, name: str, *, num_classes: int = 1000) -> None:
        super().__init__()
        network = getattr(torchvision.models, name)(weights=None, num_classes=num_classes)
        self.feature_names = [child for child, _ in network.features.named_children()]
        for child, module in network.features.named_children():
            self.add_module(child, module)
        self.classifier = network.classifier

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = images
        for name in self.feature_names:
            x = self.get_submodule(name)(x)
        return self.classifier(F.relu(x).mean(dim=(2, 3)))


def compressed_channels(channels: int, compression: float) -> int:
    """Channels that a transition keeps: floor(compression * channels).

    Raises:
        ValueError: unless 0 < compression <= 1 and at least one channel is left.
    """
    if not 0 < compression <= 1:
        raise ValueError(
            "compression is the fraction of channels that a transition keeps, above 0 and at most "
            f"1 (all); got {compression!r} (the paper's DenseNet-BC has 0.5)"
        )
    kept = math.floor(compression * channels)
    if kept < 1:
        raise ValueError(
            f"compression must keep at least one of a block's {channels} channels, so be at least "
            f"{1 / channels:.4g}; got {compression!r}"
        )
    return kept


def densenet_blocks(depth: int, *, bottleneck: bool) -> tuple[int, int, int]:
    """Block sizes of the CIFAR DenseNet of a depth: 3n+4 layers plain, 6n+4 with bottleneck.

    Raises:
        ValueError: for another depth; the message names the nearest valid ones.
    """
    network, period = ("DenseNet with bottleneck", 6) if bottleneck else ("plain DenseNet", 3)
    n = blocks_from_depth(network, depth, period, offset=4)
    return (n, n, n)
