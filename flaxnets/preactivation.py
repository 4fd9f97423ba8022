"""The pre-activated residual block (He, Zhang, Ren & Sun 2016, arXiv:1603.05027, figure 4e).

Pre-activation ResNets and Wide ResNets are built from it.
"""

from typing import Literal

import jax
from flax import nnx

from flaxnets.layers import Layers, Sequential, relu
from flaxnets.shortcuts import PadShortcut

Block = Literal["basic", "bottleneck"]
PreactivationShortcut = Literal["projection", "zero_pad_end"]
ShortcutInput = Literal["raw", "activated", "activated_first"]
StrideOn = Literal["conv1", "conv2"]
DropoutBefore = Literal["conv2", "bn2"]


class PreactivationBlock(nnx.Module):
    """(norm, ReLU, convolution) two or three times, then the addition: ``conv_k(...) + shortcut``.

    Names: bn1, conv1, bn2, conv2, with a bottleneck bn3 and conv3, and where the shape changes
    downsample (``downsample.0`` is the 1x1 convolution of a projection).

    Args:
        block: "basic" (3x3, 3x3) or "bottleneck" (1x1, 3x3, 1x1).
        layers: makes the layers.
        in_channels: channels of the input.
        inner_channels: of everything between the first and the last convolution.
        out_channels: channels of the output.
        stride: 2 halves the map.
        stride_on: the convolution that has the stride.
        first: whether it is the first block of its stage.
        shortcut: where the shape changes: "projection", a 1x1 convolution without norm, or
            "zero_pad_end", option A of He 2015.
        shortcut_input: what the shortcut reads: "raw", the block's input; "activated",
            relu(bn1(x)) where the shape changes; "activated_first", relu(bn1(x)) in every first
            block of a stage, so that there even the identity is activated.
        conv_bias: biases on all convolutions, the projection's too.
        dropout: rate.
        dropout_before: "conv2": between the last ReLU and the last convolution; or "bn2": right
            after the first convolution.
    """

    def __init__(
        self,
        block: Block,
        layers: Layers,
        in_channels: int,
        inner_channels: int,
        out_channels: int,
        *,
        stride: int,
        stride_on: StrideOn,
        first: bool,
        shortcut: PreactivationShortcut = "projection",
        shortcut_input: ShortcutInput = "activated",
        conv_bias: bool = False,
        dropout: float = 0.0,
        dropout_before: DropoutBefore = "conv2",
    ) -> None:
        if block == "basic":
            plan = [(in_channels, inner_channels, 3), (inner_channels, out_channels, 3)]
        else:
            plan = [
                (in_channels, inner_channels, 1),
                (inner_channels, inner_channels, 3),
                (inner_channels, out_channels, 1),
            ]
        self.depth = len(plan)
        for index, (channels, features, kernel_size) in enumerate(plan, start=1):
            name = f"conv{index}"
            step = stride if name == stride_on else 1
            convolution = layers.conv(channels, features, kernel_size, stride=step, bias=conv_bias)
            setattr(self, f"bn{index}", layers.norm(channels))
            setattr(self, name, convolution)
        self.dropout = layers.dropout(dropout)
        self.drops_after_first = dropout_before == "bn2"
        changes = stride != 1 or in_channels != out_channels
        shares = {"raw": False, "activated": changes, "activated_first": changes or first}
        self.shares_activation = shares[shortcut_input]
        downsample: nnx.Module | None = None
        if changes and shortcut == "zero_pad_end":
            downsample = PadShortcut(0, out_channels - in_channels, stride)
        elif changes:
            projection = layers.conv(in_channels, out_channels, 1, stride=stride, bias=conv_bias)
            downsample = Sequential([projection])
        self.downsample = nnx.data(downsample)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C_in) to (N, H / stride, W / stride, C_out)."""
        y = x
        for index in range(1, self.depth + 1):
            y = relu(getattr(self, f"bn{index}")(y))
            if index == 1 and self.shares_activation:
                x = y
            if index == self.depth and not self.drops_after_first:
                y = self._drop(y)
            y = getattr(self, f"conv{index}")(y)
            if index == 1 and self.drops_after_first:
                y = self._drop(y)
        return y + (x if self.downsample is None else self.downsample(x))

    def _drop(self, y: jax.Array) -> jax.Array:
        return y if self.dropout is None else self.dropout(y)
