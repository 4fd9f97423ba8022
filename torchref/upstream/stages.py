"""What the networks of several code bases have in common."""

from collections.abc import Callable, Sequence

from torch import nn

MakeBlock = Callable[[int, int, int], nn.Module]  # (in_channels, out_channels, stride)


def make_stages(
    make_block: MakeBlock, in_channels: int, out_channels: Sequence[int], sizes: Sequence[int]
) -> list[nn.Sequential]:
    """Build the stages of a residual network; the first block of each but the first has stride 2.

    Args:
        make_block: builds one block.
        in_channels: channels that the first stage reads.
        out_channels: channels of each stage's output.
        sizes: number of blocks of each stage.
    """
    stages = []
    for number, (channels, size) in enumerate(zip(out_channels, sizes, strict=True)):
        blocks = []
        for index in range(size):
            blocks.append(make_block(in_channels, channels, 2 if number and not index else 1))
            in_channels = channels
        stages.append(nn.Sequential(*blocks))
    return stages


def conv3x3(
    in_channels: int, out_channels: int, stride: int = 1, *, bias: bool = False
) -> nn.Conv2d:
    """Build a 3x3 convolution that keeps the map's size, or halves it with stride 2."""
    return nn.Conv2d(in_channels, out_channels, 3, stride, padding=1, bias=bias)


def conv1x1(
    in_channels: int, out_channels: int, stride: int = 1, *, bias: bool = False
) -> nn.Conv2d:
    """Build a 1x1 convolution."""
    return nn.Conv2d(in_channels, out_channels, 1, stride, bias=bias)


def projection(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    """Build a 1x1 convolution with batch norm (He 2015's option B), with keys "0" and "1"."""
    return nn.Sequential(conv1x1(in_channels, out_channels, stride), nn.BatchNorm2d(out_channels))
