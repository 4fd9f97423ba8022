"""Wide ResNets (Zagoruyko & Komodakis 2016, arXiv:1605.07146) as five code bases name them.

Depth is 6n+4; the stages are 16k, 32k and 64k channels wide. Also meliketoy's ResNet, which stands
beside his WRN and shares its names.
"""

import functools
from collections.abc import Iterator, Mapping

import torch
import torch.nn.functional as F
from torch import nn

from torchref.upstream.stages import conv1x1, conv3x3, make_stages

STEM_WIDTH = 16


def widths(widen_factor: int) -> list[int]:
    """Channels of the three stages."""
    return [width * widen_factor for width in (16, 32, 64)]


def sizes(depth: int) -> list[int]:
    """Blocks of the three stages."""
    return [(depth - 4) // 6] * 3


class XternalzBlock(nn.Module):
    """bn1, conv1 (with the stride), bn2, dropout, conv2; convShortcut reads relu(bn1(x))."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.dropout = dropout
        changes = in_channels != channels
        self.convShortcut = conv1x1(in_channels, channels, stride) if changes else None

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        activated = F.relu(self.bn1(x))
        out = F.relu(self.bn2(self.conv1(activated)))
        out = self.conv2(F.dropout(out, self.dropout, self.training))
        return out + (x if self.convShortcut is None else self.convShortcut(activated))


class XternalzStage(nn.Module):
    """The blocks of one stage, in a Sequential named ``layer``."""

    def __init__(self, layer: nn.Sequential) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, C, H, W) -> (N, channels, H / stride, W / stride)."""
        return self.layer(x)


class Xternalz(nn.Module):
    """xternalz/WideResNet-pytorch: conv1, block1 to block3, bn1, fc."""

    def __init__(
        self, depth: int, widen_factor: int, *, num_classes: int = 10, dropout: float = 0.0
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, STEM_WIDTH)
        make_block = functools.partial(XternalzBlock, dropout=dropout)
        stages = make_stages(make_block, STEM_WIDTH, widths(widen_factor), sizes(depth))
        self.block1, self.block2, self.block3 = map(XternalzStage, stages)
        self.bn1 = nn.BatchNorm2d(64 * widen_factor)
        self.fc = nn.Linear(64 * widen_factor, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.block3(self.block2(self.block1(self.conv1(images))))
        return self.fc(F.relu(self.bn1(x)).mean(dim=(2, 3)))


class Szagoruyko:
    """szagoruyko/wide-residual-networks, pytorch: a function of a flat dictionary of tensors.

    Kernels are bare tensors ("group0.block0.conv0"), batch norms have no ``num_batches_tracked``.
    The methods that a test or a loop asks of an ``nn.Module`` are here too.

    Args:
        depth: 6n+4.
        widen_factor: k.
        num_classes: number of logits.
    """

    def __init__(self, depth: int, widen_factor: int, *, num_classes: int = 10) -> None:
        self.training = True
        self.size = (depth - 4) // 6
        self.params: dict[str, torch.Tensor] = {}
        self._convolution("conv0", STEM_WIDTH, 3, 3)
        in_channels = STEM_WIDTH
        for group, channels in enumerate(widths(widen_factor)):
            for block in range(self.size):
                name = f"group{group}.block{block}"
                self._norm(f"{name}.bn0", in_channels)
                self._convolution(f"{name}.conv0", channels, in_channels, 3)
                self._norm(f"{name}.bn1", channels)
                self._convolution(f"{name}.conv1", channels, channels, 3)
                if in_channels != channels:
                    self._convolution(f"{name}.convdim", channels, in_channels, 1)
                in_channels = channels
        self._norm("bn", in_channels)
        self.params["fc.weight"] = torch.randn(num_classes, in_channels) / in_channels**0.5
        self.params["fc.bias"] = torch.zeros(num_classes)

    def _convolution(self, name: str, out_channels: int, in_channels: int, size: int) -> None:
        drawn = torch.randn(out_channels, in_channels, size, size)
        self.params[name] = drawn * (2 / (in_channels * size**2)) ** 0.5

    def _norm(self, name: str, channels: int) -> None:
        self.params[f"{name}.weight"] = torch.ones(channels)
        self.params[f"{name}.bias"] = torch.zeros(channels)
        self.params[f"{name}.running_mean"] = torch.zeros(channels)
        self.params[f"{name}.running_var"] = torch.ones(channels)

    def _normalize(self, x: torch.Tensor, name: str) -> torch.Tensor:
        leaves = ("running_mean", "running_var", "weight", "bias")
        mean, variance, scale, bias = (self.params[f"{name}.{leaf}"] for leaf in leaves)
        return F.batch_norm(x, mean, variance, scale, bias, training=self.training)

    def __call__(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        params = self.params
        x = F.conv2d(images, params["conv0"], padding=1)
        for group in range(3):
            for block in range(self.size):
                name = f"group{group}.block{block}"
                stride = 2 if group and not block else 1
                activated = F.relu(self._normalize(x, f"{name}.bn0"))
                out = F.conv2d(activated, params[f"{name}.conv0"], stride=stride, padding=1)
                out = F.relu(self._normalize(out, f"{name}.bn1"))
                out = F.conv2d(out, params[f"{name}.conv1"], padding=1)
                if f"{name}.convdim" in params:
                    x = out + F.conv2d(activated, params[f"{name}.convdim"], stride=stride)
                else:
                    x = out + x
        x = F.relu(self._normalize(x, "bn")).mean(dim=(2, 3))
        return F.linear(x, params["fc.weight"], params["fc.bias"])

    def train(self, mode: bool = True) -> "Szagoruyko":
        """Normalise by the batch and keep its statistics, or by the kept ones."""
        self.training = mode
        return self

    def eval(self) -> "Szagoruyko":
        """Normalise by the kept statistics."""
        return self.train(False)

    def double(self) -> "Szagoruyko":
        """Make all tensors float64."""
        self.params = {name: value.double() for name, value in self.params.items()}
        return self

    def parameters(self) -> Iterator[torch.Tensor]:
        """All tensors that are trained."""
        return (value for name, value in self.params.items() if "running" not in name)

    def state_dict(self) -> dict[str, torch.Tensor]:
        """The flat dictionary, as upstream saves it under "params"."""
        return dict(self.params)

    def load_state_dict(self, state: Mapping[str, torch.Tensor], strict: bool = True) -> None:
        """Copy values into the tensors.

        Raises:
            KeyError: ``strict``, and the names are others.
        """
        if strict and state.keys() != self.params.keys():
            raise KeyError(", ".join(sorted(state.keys() ^ self.params.keys())))
        for name, value in state.items():
            self.params[name].copy_(value)


class MeliketoyBlock(nn.Module):
    """bn1, conv1, dropout, bn2, conv2 (with the stride); all convolutions biased.

    ``shortcut.0`` reads the block's input; for the identity ``shortcut`` is empty.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, bias=True)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, stride, bias=True)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(conv1x1(in_channels, channels, stride, bias=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        return self.conv2(F.relu(self.bn2(out))) + self.shortcut(x)


class Meliketoy(nn.Module):
    """meliketoy/wide-resnet.pytorch: conv1, layer1 to layer3, bn1 (momentum 0.9), linear."""

    def __init__(
        self, depth: int, widen_factor: int, *, num_classes: int = 10, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, STEM_WIDTH, bias=True)
        make_block = functools.partial(MeliketoyBlock, dropout=dropout)
        stages = make_stages(make_block, STEM_WIDTH, widths(widen_factor), sizes(depth))
        self.layer1, self.layer2, self.layer3 = stages
        self.bn1 = nn.BatchNorm2d(64 * widen_factor, momentum=0.9)
        self.linear = nn.Linear(64 * widen_factor, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.layer3(self.layer2(self.layer1(self.conv1(images))))
        return self.linear(F.relu(self.bn1(x)).mean(dim=(2, 3)))


class MeliketoyResNetBlock(nn.Module):
    """The post-activation basic block of meliketoy's ``networks/resnet.py``."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(in_channels, channels, stride, bias=True)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels, bias=True)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(conv1x1(in_channels, channels, stride, bias=True))
            self.shortcut.append(nn.BatchNorm2d(channels))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        return F.relu(out + self.shortcut(x))


class MeliketoyResNet(nn.Module):
    """meliketoy's ResNet with basic blocks: three stages, whose "ResNet-18" has 14 layers."""

    def __init__(self, blocks: tuple[int, int, int] = (2, 2, 2), *, num_classes: int = 10) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, STEM_WIDTH, bias=True)
        self.bn1 = nn.BatchNorm2d(STEM_WIDTH)
        stages = make_stages(MeliketoyResNetBlock, STEM_WIDTH, widths(1), blocks)
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(64, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = F.relu(self.bn1(self.conv1(images)))
        x = self.layer3(self.layer2(self.layer1(x)))
        return self.linear(x.mean(dim=(2, 3)))


class WeiaicunzaiBlock(nn.Module):
    """residual (a Sequential, dropout before its second convolution) and shortcut.0, both biased.

    The stride is on the first convolution, and the shortcut reads the block's input.
    """

    def __init__(self, in_channels: int, channels: int, stride: int, *, dropout: float) -> None:
        super().__init__()
        self.residual = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.ReLU(),
            conv3x3(in_channels, channels, stride, bias=True),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            conv3x3(channels, channels, bias=True),
        )
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(conv1x1(in_channels, channels, stride, bias=True))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        return self.residual(x) + self.shortcut(x)


class Weiaicunzai(nn.Module):
    """weiaicunzai/pytorch-cifar100, wideresidual.py: init_conv, conv2 to conv4, bn, linear."""

    def __init__(
        self, depth: int, widen_factor: int, *, num_classes: int = 100, dropout: float = 0.5
    ) -> None:
        super().__init__()
        self.init_conv = conv3x3(3, STEM_WIDTH, bias=True)
        make_block = functools.partial(WeiaicunzaiBlock, dropout=dropout)
        stages = make_stages(make_block, STEM_WIDTH, widths(widen_factor), sizes(depth))
        self.conv2, self.conv3, self.conv4 = stages
        self.bn = nn.BatchNorm2d(64 * widen_factor)
        self.linear = nn.Linear(64 * widen_factor, num_classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        x = self.conv4(self.conv3(self.conv2(self.init_conv(images))))
        return self.linear(F.relu(self.bn(x)).mean(dim=(2, 3)))


class TutorialBlock(nn.Module):
    """bn1, conv1 (with the stride), dropout, bn2, conv2; shortcut.0 reads the block's input."""

    def __init__(self, in_channels: int, channels: int, stride: int, *, dropout: float) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = conv3x3(in_channels, channels, stride)
        self.dropout = nn.Dropout(dropout)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = conv3x3(channels, channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut.append(conv1x1(in_channels, channels, stride))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, channels, H / stride, W / stride)."""
        out = self.dropout(self.conv1(F.relu(self.bn1(x))))
        return self.conv2(F.relu(self.bn2(out))) + self.shortcut(x)


class Tutorial(nn.Module):
    """A Korean tutorial's WRN: conv1, layer2 to layer4, and fcl, whose first layer is a norm."""

    def __init__(
        self, depth: int, widen_factor: int, *, num_classes: int = 10, dropout: float = 0.3
    ) -> None:
        super().__init__()
        self.conv1 = conv3x3(3, STEM_WIDTH)
        make_block = functools.partial(TutorialBlock, dropout=dropout)
        stages = make_stages(make_block, STEM_WIDTH, widths(widen_factor), sizes(depth))
        self.layer2, self.layer3, self.layer4 = stages
        self.fcl = nn.Sequential(
            nn.BatchNorm2d(64 * widen_factor),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(64 * widen_factor, num_classes),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images (N, 3, H, W) -> logits (N, num_classes)."""
        return self.fcl(self.layer4(self.layer3(self.layer2(self.conv1(images)))))
