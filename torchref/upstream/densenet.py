"""DenseNets (Huang et al. 2017, arXiv:1608.06993) as four code bases name them."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from torchref.upstream.stages import conv1x1, conv3x3


class DenseLayer(nn.Module):
    """bn1, conv1[, bn2, conv2]: ``growth_rate`` new maps, concatenated to what was read.

    Args:
        in_channels: of the input.
        growth_rate: k.
        bottleneck: a 1x1 convolution to 4k channels before the 3x3.
        dropout: rate after every convolution.
        new_first: whether the new maps stand in front.
    """

    def __init__(
        self,
        in_channels: int,
        growth_rate: int,
        *,
        bottleneck: bool,
        dropout: float = 0.0,
        new_first: bool = False,
    ) -> None:
        super().__init__()
        self.dropout, self.new_first, self.depth = dropout, new_first, 1 + bottleneck
        self.bn1 = nn.BatchNorm2d(in_channels)
        if bottleneck:
            self.conv1 = conv1x1(in_channels, 4 * growth_rate)
            self.bn2 = nn.BatchNorm2d(4 * growth_rate)
            self.conv2 = conv3x3(4 * growth_rate, growth_rate)
        else:
            self.conv1 = conv3x3(in_channels, growth_rate)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C + growth_rate, H, W)."""
        out = x
        for index in range(1, self.depth + 1):
            out = F.relu(getattr(self, f"bn{index}")(out))
            out = F.dropout(getattr(self, f"conv{index}")(out), self.dropout, self.training)
        return torch.cat([out, x] if self.new_first else [x, out], dim=1)


class Transition(nn.Module):
    """Norm, ReLU, 1x1 convolution, dropout and 2x2 averages; norm and convolution by any name."""

    def __init__(
        self, in_channels: int, out_channels: int, names: tuple[str, str], dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.names, self.dropout = names, dropout
        self.add_module(names[0], nn.BatchNorm2d(in_channels))
        self.add_module(names[1], conv1x1(in_channels, out_channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2)."""
        norm, convolution = (getattr(self, name) for name in self.names)
        x = F.dropout(convolution(F.relu(norm(x))), self.dropout, self.training)
        return F.avg_pool2d(x, 2)


class LayerBlock(nn.Module):
    """The dense layers of one block, in a Sequential named ``layer``."""

    def __init__(self, layer: nn.Sequential) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C + layers * growth_rate, H, W)."""
        return self.layer(x)


class FlatDenseNet(nn.Module):
    """conv1, blocks and transitions in turn, a last norm and a classifier, all by any name.

    Args:
        block_sizes: number of dense layers of each block.
        growth_rate: k.
        stem_width: channels of the stem; by default 2k.
        bottleneck: as in ``DenseLayer``.
        reduction: share of the channels that a transition keeps, rounded down.
        dropout: rate after every convolution but the stem's.
        new_first: as in ``DenseLayer``.
        block: name of a block, before its number.
        wrap: whether a block's layers stand in ``layer``.
        transition: names of a transition's norm and convolution.
        norm: name of the last norm.
        head: name of the classifier.
        num_classes: number of logits.
        log_probabilities: whether the output is log_softmax of the logits.
    """

    def __init__(
        self,
        *,
        block_sizes: Sequence[int],
        growth_rate: int,
        stem_width: int | None,
        bottleneck: bool,
        reduction: float,
        dropout: float = 0.0,
        new_first: bool = False,
        block: str,
        wrap: bool = False,
        transition: tuple[str, str],
        norm: str,
        head: str,
        num_classes: int,
        log_probabilities: bool = False,
    ) -> None:
        super().__init__()
        self.log_probabilities = log_probabilities
        channels = 2 * growth_rate if stem_width is None else stem_width
        self.conv1 = conv3x3(3, channels)
        self.body: list[str] = []
        for number, size in enumerate(block_sizes, start=1):
            layers = nn.Sequential()
            for _ in range(size):
                layers.append(
                    DenseLayer(
                        channels,
                        growth_rate,
                        bottleneck=bottleneck,
                        dropout=dropout,
                        new_first=new_first,
                    )
                )
                channels += growth_rate
            self._add(f"{block}{number}", LayerBlock(layers) if wrap else layers)
            if number < len(block_sizes):
                kept = int(channels * reduction)
                self._add(f"trans{number}", Transition(channels, kept, transition, dropout))
                channels = kept
        self._add(norm, nn.BatchNorm2d(channels))
        self.head = head
        self.add_module(head, nn.Linear(channels, num_classes))

    def _add(self, name: str, module: nn.Module) -> None:
        self.add_module(name, module)
        self.body.append(name)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits, or log-probabilities (N, num_classes)."""
        x = self.conv1(images)
        for name in self.body:
            x = getattr(self, name)(x)
        logits = getattr(self, self.head)(F.relu(x).mean(dim=(2, 3)))
        return F.log_softmax(logits, dim=1) if self.log_probabilities else logits


def andreasveit(
    *,
    block_sizes: Sequence[int] = (16, 16, 16),
    growth_rate: int = 12,
    stem_width: int | None = None,
    bottleneck: bool = True,
    reduction: float = 0.5,
    dropout: float = 0.0,
    num_classes: int = 10,
) -> nn.Module:
    """andreasveit/densenet-pytorch: ``block1.layer.0.bn1``, ``trans1.bn1``, ``bn1``, ``fc``.

    Tutorials made from it have a stem of 16 channels with neither bottlenecks nor reduction.
    """
    return FlatDenseNet(
        block_sizes=block_sizes,
        growth_rate=growth_rate,
        stem_width=stem_width,
        bottleneck=bottleneck,
        reduction=reduction,
        dropout=dropout,
        block="block",
        wrap=True,
        transition=("bn1", "conv1"),
        norm="bn1",
        head="fc",
        num_classes=num_classes,
    )


def bamos(
    *,
    block_sizes: Sequence[int] = (16, 16, 16),
    growth_rate: int = 12,
    bottleneck: bool = True,
    reduction: float = 0.5,
    num_classes: int = 10,
) -> nn.Module:
    """bamos/densenet.pytorch: ``dense1.0.bn1``, ``trans1.bn1``, ``bn1``, ``fc``; log_softmax."""
    return FlatDenseNet(
        block_sizes=block_sizes,
        growth_rate=growth_rate,
        stem_width=None,
        bottleneck=bottleneck,
        reduction=reduction,
        block="dense",
        transition=("bn1", "conv1"),
        norm="bn1",
        head="fc",
        num_classes=num_classes,
        log_probabilities=True,
    )


def kuangliu(
    *,
    block_sizes: Sequence[int] = (6, 12, 24, 16),
    growth_rate: int = 12,
    num_classes: int = 10,
) -> nn.Module:
    """kuangliu/pytorch-cifar, densenet.py: new maps in front; ``trans1.bn``, ``bn``, ``linear``."""
    return FlatDenseNet(
        block_sizes=block_sizes,
        growth_rate=growth_rate,
        stem_width=None,
        bottleneck=True,
        reduction=0.5,
        new_first=True,
        block="dense",
        transition=("bn", "conv"),
        norm="bn",
        head="linear",
        num_classes=num_classes,
    )


class WeiaicunzaiLayer(nn.Module):
    """bottle_neck: norm, ReLU, 1x1 convolution, norm, ReLU, 3x3 convolution."""

    def __init__(self, in_channels: int, growth_rate: int) -> None:
        super().__init__()
        inner = 4 * growth_rate
        self.bottle_neck = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            conv1x1(in_channels, inner),
            nn.BatchNorm2d(inner),
            nn.ReLU(),
            conv3x3(inner, growth_rate),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, C + growth_rate, H, W)."""
        return torch.cat([x, self.bottle_neck(x)], dim=1)


class WeiaicunzaiTransition(nn.Module):
    """down_sample: norm, 1x1 convolution and 2x2 averages, with no ReLU."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.down_sample = nn.Sequential(
            nn.BatchNorm2d(in_channels), conv1x1(in_channels, out_channels), nn.AvgPool2d(2)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / 2, W / 2)."""
        return self.down_sample(x)


class Weiaicunzai(nn.Module):
    """weiaicunzai/pytorch-cifar100, densenet.py: conv1, features and linear.

    The last block is ``features.dense_block3`` where the others are
    ``features.dense_block_layer_0``; the number is that of the last of four blocks.
    """

    def __init__(
        self,
        *,
        block_sizes: Sequence[int] = (6, 12, 24, 16),
        growth_rate: int = 32,
        num_classes: int = 100,
    ) -> None:
        super().__init__()
        channels = 2 * growth_rate
        self.conv1 = conv3x3(3, channels)
        self.features = nn.Sequential()
        last = len(block_sizes) - 1
        for number, size in enumerate(block_sizes):
            block = nn.Sequential()
            for index in range(size):
                layer = WeiaicunzaiLayer(channels, growth_rate)
                block.add_module(f"bottle_neck_layer_{index}", layer)
                channels += growth_rate
            if number == last:
                self.features.add_module(f"dense_block{number}", block)
            else:
                self.features.add_module(f"dense_block_layer_{number}", block)
                transition = WeiaicunzaiTransition(channels, channels // 2)
                self.features.add_module(f"transition_layer_{number}", transition)
                channels //= 2
        self.features.add_module("bn", nn.BatchNorm2d(channels))
        self.features.add_module("relu", nn.ReLU())
        self.linear = nn.Linear(channels, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        return self.linear(self.features(self.conv1(images)).mean(dim=(2, 3)))
