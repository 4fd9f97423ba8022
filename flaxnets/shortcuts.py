"""The kinds of residual shortcut, under the names that configs use."""

from typing import Literal

import jax
import jax.numpy as jnp
from flax import nnx

from flaxnets.layers import Layers, Sequential
from flaxnets.pooling import avg_pool

Shortcut = Literal[
    "zero_pad_end", "zero_pad_both", "avg_pool_pad", "projection", "projection_biased"
]
SHORTCUTS: tuple[str, ...] = (
    "zero_pad_end",
    "zero_pad_both",
    "avg_pool_pad",
    "projection",
    "projection_biased",
)


class PadShortcut(nnx.Module):
    """A shortcut without parameters: shrinks the map and adds channels of zeros.

    Args:
        before: channels of zeros in front.
        after: channels of zeros behind.
        stride: the factor by which height and width shrink.
        average: shrink by averaging (floor) instead of taking every ``stride``-th pixel (ceil).
    """

    def __init__(self, before: int, after: int, stride: int, *, average: bool = False) -> None:
        self.before, self.after, self.stride, self.average = before, after, stride, average

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) to (N, H / stride, W / stride, before + C + after)."""
        if self.average and (x.shape[1] % self.stride or x.shape[2] % self.stride):
            raise ValueError(
                f"avg_pool_pad halves maps of even size only, got {x.shape[1]}x{x.shape[2]}: "
                "pooling rounds down where the convolution beside it rounds up"
            )
        x = avg_pool(x, self.stride) if self.average else x[:, :: self.stride, :: self.stride]
        return jnp.pad(x, ((0, 0), (0, 0), (0, 0), (self.before, self.after)))


def make_shortcut(
    kind: Shortcut, layers: Layers, in_channels: int, out_channels: int, stride: int
) -> nnx.Module:
    """The module that turns a block's input into the shape of its output.

    Args:
        kind: "zero_pad_end": option A of He 2015 with all the zero channels at the end
            (fb.resnet.torch, KellerJordan); "zero_pad_both": half of them on either side
            (akamaster); "avg_pool_pad": average pooling, then zeros at the end (KellerJordan's
            "C"); "projection": 1x1 convolution and batch norm (option B); "projection_biased":
            1x1 convolution with bias, no norm (KellerJordan's "B").
        layers: makes the layers with parameters.
        in_channels: channels of the block's input.
        out_channels: channels of its output.
        stride: of the block.
    """
    extra = out_channels - in_channels
    match kind:
        case "zero_pad_end":
            return PadShortcut(0, extra, stride)
        case "zero_pad_both":
            return PadShortcut(extra // 2, extra - extra // 2, stride)
        case "avg_pool_pad":
            return PadShortcut(0, extra, stride, average=True)
        case "projection":
            convolution = layers.conv(in_channels, out_channels, 1, stride=stride)
            return Sequential([convolution, layers.norm(out_channels)])
        case "projection_biased":
            return Sequential([layers.conv(in_channels, out_channels, 1, stride=stride, bias=True)])
