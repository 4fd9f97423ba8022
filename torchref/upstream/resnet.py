"""Post-activation ResNets (He et al. 2015, arXiv:1512.03385) as eight code bases name them."""

import functools
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from torchref.upstream.stages import conv1x1, conv3x3, make_stages, projection

Kind = Literal["basic", "bottleneck"]


class ChannelPad(nn.Module):
    """Zeros as further channels; no parameters.

    Args:
        before: how many in front.
        after: how many behind.
        shrink: what is done to the map first.
    """

    def __init__(self, before: int, after: int, shrink: nn.Module) -> None:
        super().__init__()
        self.before, self.after, self.shrink = before, after, shrink

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, before + C + after, H / stride, W / stride)."""
        return F.pad(self.shrink(x), (0, 0, 0, 0, self.before, self.after))


class Block(nn.Module):
    """conv1, bn1, conv2, bn2[, conv3, bn3] and a shortcut by any name; ReLU after the sum.

    A bottleneck's stride is on conv2.

    Args:
        in_channels: of the input.
        out_channels: of the output.
        stride: 2 halves the map.
        kind: "basic" or "bottleneck".
        name: of the shortcut.
        make_shortcut: builds it from (in_channels, out_channels, stride) where the shape changes.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        *,
        kind: Kind,
        name: str,
        make_shortcut: Callable[[int, int, int], nn.Module] = projection,
    ) -> None:
        super().__init__()
        self.name = name
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
            self.add_module(f"conv{index}", convolution)
            self.add_module(f"bn{index}", nn.BatchNorm2d(convolution.out_channels))
        changes = stride != 1 or in_channels != out_channels
        shortcut = make_shortcut(in_channels, out_channels, stride) if changes else nn.Identity()
        self.add_module(name, shortcut)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        out = x
        for index in range(1, self.depth + 1):
            out = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(out))
            if index < self.depth:
                out = F.relu(out)
        return F.relu(out + getattr(self, self.name)(x))


class NamedResNet(nn.Module):
    """conv1 (3x3), bn1, layer1, layer2, ... and a classifier by any name."""

    def __init__(
        self,
        make_block: Callable[[int, int, int], nn.Module],
        *,
        stem_width: int,
        channels: Sequence[int],
        sizes: Sequence[int],
        head: str,
        num_classes: int,
    ) -> None:
        super().__init__()
        self.head = head
        self.conv1 = conv3x3(3, stem_width)
        self.bn1 = nn.BatchNorm2d(stem_width)
        stages = make_stages(make_block, stem_width, channels, sizes)
        self.stages = [f"layer{number}" for number in range(1, len(stages) + 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)
        self.add_module(head, nn.Linear(channels[-1], num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = F.relu(self.bn1(self.conv1(images)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


def kuangliu(
    kind: Kind = "basic",
    *,
    sizes: Sequence[int] = (2, 2, 2, 2),
    widths: Sequence[int] = (64, 128, 256, 512),
    num_classes: int = 10,
) -> nn.Module:
    """kuangliu/pytorch-cifar, resnet.py: projections ``shortcut.0`` and ``.1``, head ``linear``."""
    return NamedResNet(
        functools.partial(Block, kind=kind, name="shortcut"),
        stem_width=widths[0],
        channels=[width * (1 if kind == "basic" else 4) for width in widths],
        sizes=sizes,
        head="linear",
        num_classes=num_classes,
    )


def akamaster(
    option: Literal["A", "B"] = "A",
    *,
    sizes: Sequence[int] = (3, 3, 3),
    widths: Sequence[int] = (16, 32, 64),
    num_classes: int = 10,
) -> nn.Module:
    """akamaster/pytorch_resnet_cifar10: option A puts half of the zeros on either side."""

    def pad_both(in_channels: int, out_channels: int, stride: int) -> nn.Module:
        side = (out_channels - in_channels) // 2
        return ChannelPad(side, out_channels - in_channels - side, nn.MaxPool2d(1, stride))

    make_shortcut = pad_both if option == "A" else projection
    return NamedResNet(
        functools.partial(Block, kind="basic", name="shortcut", make_shortcut=make_shortcut),
        stem_width=widths[0],
        channels=widths,
        sizes=sizes,
        head="linear",
        num_classes=num_classes,
    )


def chenyaofo(
    *,
    sizes: Sequence[int] = (3, 3, 3),
    widths: Sequence[int] = (16, 32, 64),
    num_classes: int = 10,
) -> nn.Module:
    """chenyaofo/pytorch-cifar-models, resnet.py: torchvision's names, projections, three stages."""
    return NamedResNet(
        functools.partial(Block, kind="basic", name="downsample"),
        stem_width=widths[0],
        channels=widths,
        sizes=sizes,
        head="fc",
        num_classes=num_classes,
    )


class KellerJordanProjection(nn.Module):
    """A shortcut of KellerJordan's option B: a 1x1 convolution with bias, no norm."""

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.conv = conv1x1(in_channels, out_channels, stride, bias=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        return self.conv(x)


class KellerJordanBlock(nn.Module):
    """Biased convolutions; dropout after bn2 where the block is the first of its stage."""

    def __init__(
        self, in_channels: int, channels: int, stride: int, *, option: str, dropout: float
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride, bias=True)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, bias=True)
        self.bn2 = nn.BatchNorm2d(channels)
        self.dropout = nn.Dropout(dropout)
        self.projection: nn.Module = nn.Identity()
        extra = channels - in_channels
        if stride != 1 or extra:
            shrink = nn.MaxPool2d(1, stride) if option == "A" else nn.AvgPool2d(stride)
            self.projection = (
                KellerJordanProjection(in_channels, channels, stride)
                if option == "B"
                else ChannelPad(0, extra, shrink)
            )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        out = F.relu(self.bn1(self.conv1(x)))
        out = self.dropout(self.bn2(self.conv2(out)))
        return F.relu(out + self.projection(x))


class KellerJordan(nn.Module):
    """KellerJordan/ResNet-PyTorch-CIFAR10: conv1, norm1, layers1, ..., linear; biases everywhere.

    Args:
        option: "A" pads zeros at the end of a strided slice, "C" of 2x2 averages, "B" projects
            without norm (upstream's own B raises before it is built; this is what it describes).
        sizes: number of blocks of each stage.
        widths: of each stage.
        num_classes: number of logits; upstream's is 10.
        dropout: upstream's is 0.5, in the first block of each stage.
    """

    def __init__(
        self,
        option: Literal["A", "B", "C"] = "A",
        *,
        sizes: Sequence[int] = (7, 7, 7),
        widths: Sequence[int] = (16, 32, 64),
        num_classes: int = 10,
        dropout: float = 0.5,
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, widths[0], bias=True)
        self.norm1 = nn.BatchNorm2d(widths[0])
        make_block = functools.partial(KellerJordanBlock, option=option, dropout=dropout)
        stages = make_stages(make_block, widths[0], widths, sizes)
        self.stages = [f"layers{number}" for number in range(1, len(stages) + 1)]
        for name, stage in zip(self.stages, stages, strict=True):
            for block in stage[1:]:
                block.dropout = nn.Identity()
            self.add_module(name, stage)
        self.linear = nn.Linear(widths[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = F.relu(self.norm1(self.conv1(images)))
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.linear(x.mean(dim=(2, 3)))


class PytorchBookBlock(nn.Module):
    """left: convolution, norm, ReLU, convolution, norm; right: the projection, where there is one.

    Without a projection ``right`` is None and has no key.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, project: bool) -> None:
        super().__init__()
        self.left = nn.Sequential(
            conv3x3(in_channels, channels, stride),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            conv3x3(channels, channels),
            nn.BatchNorm2d(channels),
        )
        self.right = projection(in_channels, channels, stride) if project else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        return F.relu(self.left(x) + (x if self.right is None else self.right(x)))


class PytorchBook(nn.Module):
    """chenyuntc/pytorch-book: pre (7x7 stem with max-pooling), layer1 to layer4 and the head.

    Args:
        head: "classifier" (chapter 4) or "fc" (chapter 9, and every chapter up to v1.0).
        project_first: whether the first block of layer1 projects too, as up to v1.0, where the
            shape stays the same.
        sizes: number of blocks of each stage.
        stem_width: of the stem.
        widths: of each stage; (128, 256, 512, 512) in chapter 6 up to v1.0.
        num_classes: number of logits.
    """

    def __init__(
        self,
        head: Literal["classifier", "fc"] = "classifier",
        *,
        project_first: bool = False,
        sizes: Sequence[int] = (3, 4, 6, 3),
        stem_width: int = 64,
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int = 1000,
    ) -> None:
        super().__init__()
        self.head = head
        self.pre = nn.Sequential(
            nn.Conv2d(3, stem_width, 7, 2, padding=3, bias=False),
            nn.BatchNorm2d(stem_width),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, padding=1),
        )
        firsts = [project_first or stem_width != widths[0], *(True for _ in widths[1:])]
        in_channels = stem_width
        for number, (width, size, project) in enumerate(
            zip(widths, sizes, firsts, strict=True), start=1
        ):
            stride = 1 if number == 1 else 2
            blocks = [PytorchBookBlock(in_channels, width, stride, project=project)]
            blocks += [PytorchBookBlock(width, width, 1, project=False) for _ in range(1, size)]
            self.add_module(f"layer{number}", nn.Sequential(*blocks))
            in_channels = width
        self.depth = len(widths)
        self.add_module(head, nn.Linear(in_channels, num_classes))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.pre(images)
        for number in range(1, self.depth + 1):
            x = getattr(self, f"layer{number}")(x)
        return getattr(self, self.head)(x.mean(dim=(2, 3)))


class WeiaicunzaiBlock(nn.Module):
    """residual_function (a Sequential) and shortcut (empty for the identity), added, then ReLU."""

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
        layers: list[nn.Module] = []
        for convolution in convolutions:
            layers += [convolution, nn.BatchNorm2d(convolution.out_channels), nn.ReLU()]
        self.residual_function = nn.Sequential(*layers[:-1])
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            self.shortcut = projection(in_channels, out_channels, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H / stride, W / stride)."""
        return F.relu(self.residual_function(x) + self.shortcut(x))


class Weiaicunzai(nn.Module):
    """weiaicunzai/pytorch-cifar100, resnet.py: conv1 (a Sequential), conv2_x to conv5_x, fc."""

    def __init__(
        self,
        kind: Kind = "basic",
        *,
        sizes: Sequence[int] = (2, 2, 2, 2),
        widths: Sequence[int] = (64, 128, 256, 512),
        num_classes: int = 100,
    ) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(conv3x3(3, widths[0]), nn.BatchNorm2d(widths[0]), nn.ReLU())
        channels = [width * (1 if kind == "basic" else 4) for width in widths]
        make_block = functools.partial(WeiaicunzaiBlock, kind=kind)
        stages = make_stages(make_block, widths[0], channels, sizes)
        self.stages = [f"conv{number}_x" for number in range(2, len(stages) + 2)]
        for name, stage in zip(self.stages, stages, strict=True):
            self.add_module(name, stage)
        self.fc = nn.Linear(channels[-1], num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.conv1(images)
        for name in self.stages:
            x = getattr(self, name)(x)
        return self.fc(x.mean(dim=(2, 3)))
