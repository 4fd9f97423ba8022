"""The shortcut kinds of the ResNet family: how a block's input is matched to its output.

The parameter-free kinds are modules too, so that forward hooks see them.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

Shortcut = Literal[
    "zero_pad_end", "zero_pad_both", "projection", "projection_biased", "avg_pool_pad"
]


class ZeroPad(nn.Module):
    """Option A of He et al. 2015 (section 4.2): every stride-th pixel, new channels zero.

    Leaves no parameters, and so no trace in a state dict of where the zeros go.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, at least ``in_channels``.
        stride: step between the pixels kept, in both directions.
        both_sides: half of the zero channels come before the input's, as akamaster pads;
            otherwise all come after them, as KellerJordan and fb.resnet.torch pad.
    """

    def __init__(
        self, in_channels: int, out_channels: int, stride: int, *, both_sides: bool
    ) -> None:
        super().__init__()
        new_channels = _new_channels(in_channels, out_channels)
        self.stride = stride
        self.before = new_channels // 2 if both_sides else 0
        self.after = new_channels - self.before

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, ceil(H / stride), ceil(W / stride))."""
        x = x[:, :, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, self.before, self.after))


class AvgPoolPad(nn.Module):
    """KellerJordan's option C: average over stride x stride pixels, zero channels at the end.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output, at least ``in_channels``.
        stride: side and step of the pooling window.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.after = _new_channels(in_channels, out_channels)
        self.stride = stride

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """(N, in_channels, H, W) -> (N, out_channels, H // stride, W // stride).

        H and W must be multiples of ``stride``, or the result does not fit the block's output.
        """
        x = F.pad(x, (0, 0, 0, 0, 0, self.after))
        return F.avg_pool2d(x, self.stride)


def make_shortcut(kind: Shortcut, in_channels: int, out_channels: int, stride: int) -> nn.Module:
    """Build one shortcut, with torchvision's names inside: "0" the convolution, "1" the norm.

    ``"projection"`` is option B of He et al. 2015, ``"projection_biased"`` KellerJordan's B.
    """
    if kind == "projection":
        conv = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        return nn.Sequential(conv, nn.BatchNorm2d(out_channels))
    if kind == "projection_biased":
        return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=True))
    if kind == "avg_pool_pad":
        return AvgPoolPad(in_channels, out_channels, stride)
    return ZeroPad(in_channels, out_channels, stride, both_sides=kind == "zero_pad_both")


def _new_channels(in_channels: int, out_channels: int) -> int:
    if out_channels < in_channels:
        raise ValueError(
            "a shortcut that pads with zero channels needs at least as many output channels as "
            f"input channels; got {in_channels} -> {out_channels} (use shortcut='projection', or "
            "widths that do not shrink)"
        )
    return out_channels - in_channels
