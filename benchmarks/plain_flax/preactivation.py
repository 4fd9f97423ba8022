"""Pre-activation ResNet and WRN in plain Flax."""

from typing import Any

import jax
from flax import nnx

from benchmarks.plain_flax.layers import Layers, PadShortcut, apply_shortcut
from flaxnets import PreActResNetConfig, WideResNetConfig

_WRN_WIDTHS = (16, 32, 64)  # before widening


class PreactivationBlock(nnx.Module):
    """(norm, ReLU, convolution) two or three times, then the addition."""

    def __init__(
        self,
        layers: Layers,
        channels: list[int],
        stride: int,
        stride_on: str,
        shares_activation: bool,
        pads: bool,
    ) -> None:
        sizes = (3, 3) if len(channels) == 3 else (1, 3, 1)
        self.depth = len(sizes)
        for index, size in enumerate(sizes, start=1):
            inputs, outputs = channels[index - 1 : index + 1]
            steps = stride if stride_on == f"conv{index}" else 1
            setattr(self, f"bn{index}", layers.norm(inputs))
            setattr(self, f"conv{index}", layers.conv(inputs, outputs, size, strides=steps))
        self.shares_activation = shares_activation
        shortcut: Any = None
        inputs, outputs = channels[0], channels[-1]
        if stride != 1 or inputs != outputs:
            if pads:
                shortcut = PadShortcut(0, outputs - inputs, stride)
            else:
                shortcut = nnx.List([layers.conv(inputs, outputs, 1, strides=stride)])
        self.downsample = nnx.data(shortcut)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C_in) to (N, H / stride, W / stride, C_out)."""
        y = x
        for index in range(1, self.depth + 1):
            y = nnx.relu(getattr(self, f"bn{index}")(y))
            if index == 1 and self.shares_activation:
                x = y
            y = getattr(self, f"conv{index}")(y)
        return y + apply_shortcut(self.downsample, x)


class PreactivationNetwork(nnx.Module):
    """A stem, stages of blocks, norm, ReLU, mean and classifier; subclasses know the numbers."""

    bn0: Any
    bn1: Any
    fc: nnx.Linear

    def make_stages(
        self,
        layers: Layers,
        sizes: tuple[int, ...],
        widths: list[list[int]],
        stem_width: int,
        shortcut_input: str,
        **options: Any,
    ) -> int:
        """Add the stem and all stages; returns the last one's channels.

        Args:
            layers: makes the layers.
            sizes: blocks in each stage.
            widths: of each stage, a block's convolutions' output channels.
            stem_width: channels of the stem.
            shortcut_input: as in ``flaxnets.preactivation``.
            options: of every block.
        """
        self.conv1 = layers.conv(3, stem_width, 3)
        channels = stem_width
        self.stages = len(sizes)
        for stage, (count, outputs) in enumerate(zip(sizes, widths, strict=True), start=1):
            blocks = []
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                changes = stride != 1 or channels != outputs[-1]
                shares = {
                    "raw": False,
                    "activated": changes,
                    "activated_first": changes or index == 0,
                }[shortcut_input]
                block = PreactivationBlock(
                    layers, [channels, *outputs], stride, shares_activation=shares, **options
                )
                blocks.append(block)
                channels = outputs[-1]
            setattr(self, f"layer{stage}", nnx.List(blocks))
        return channels

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pictures (N, H, W, 3) to logits."""
        x = self.conv1(x)
        if self.bn0 is not None:
            x = nnx.relu(self.bn0(x))
        for stage in range(1, self.stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)
        if self.bn1 is not None:
            x = nnx.relu(self.bn1(x))
        return self.fc(x.mean((1, 2)))


class PreActResNet(PreactivationNetwork):
    """Pre-activation ResNet."""

    def __init__(self, config: PreActResNetConfig, layers: Layers) -> None:
        if config.block == "basic":
            widths = [[width, width] for width in config.widths]
        else:
            widths = [[width, width, 4 * width] for width in config.widths]
        channels = self.make_stages(
            layers,
            config.stage_sizes,
            widths,
            config.stem_width,
            config.shortcut_input,
            stride_on=config.stride_on,
            pads=config.shortcut == "zero_pad_end",
        )
        self.bn0 = nnx.data(layers.norm(config.stem_width) if config.stem_norm else None)
        self.bn1 = nnx.data(layers.norm(channels) if config.final_norm else None)
        self.fc = layers.linear(channels, config.num_classes)


class WideResNet(PreactivationNetwork):
    """WRN."""

    def __init__(self, config: WideResNetConfig, layers: Layers) -> None:
        widths = []
        for width in _WRN_WIDTHS:
            inner = width * config.widen_factor
            widths.append([inner, inner] if config.block == "basic" else [inner, inner, 4 * width])
        channels = self.make_stages(
            layers,
            (config.blocks_per_stage,) * len(widths),
            widths,
            16,
            config.projection_input,
            stride_on=config.stride_on,
            pads=False,
        )
        self.bn0 = nnx.data(None)
        self.bn1 = layers.norm(channels)
        self.fc = layers.linear(channels, config.num_classes)
