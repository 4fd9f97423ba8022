"""ResNet in plain Flax."""

import jax
from flax import nnx

from benchmarks.plain_flax.layers import Layers, apply_shortcut, make_shortcut
from flaxnets import ResNetConfig


class ResidualBlock(nnx.Module):
    """Convolutions and norms, the addition, a ReLU."""

    def __init__(
        self,
        config: ResNetConfig,
        layers: Layers,
        inputs: int,
        width: int,
        stride: int,
        first: bool,
    ) -> None:
        outputs = width * config.expansion
        if config.block == "basic":
            self.conv1 = layers.conv(inputs, width, 3, strides=stride)
            self.conv2 = layers.conv(width, width, 3)
            widths = [width, width]
        else:
            inner, groups = config.inner_width(width), config.groups
            self.conv1 = layers.conv(inputs, inner, 1)
            self.conv2 = layers.conv(inner, inner, 3, strides=stride, feature_group_count=groups)
            self.conv3 = layers.conv(inner, outputs, 1)
            widths = [inner, inner, outputs]
        self.depth = len(widths)
        for index, channels in enumerate(widths, start=1):
            setattr(self, f"bn{index}", layers.norm(channels))
        changes = stride != 1 or inputs != outputs
        project = config.project == "every_block" or changes
        if project or (first and config.project == "first_of_stage"):
            shortcut = make_shortcut(config.shortcut, layers, inputs, outputs, stride)
        else:
            shortcut = None
        self.downsample = nnx.data(shortcut)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C_in) to (N, H / stride, W / stride, C_out)."""
        y = x
        for index in range(1, self.depth + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            if index < self.depth:
                y = nnx.relu(y)
        return nnx.relu(y + apply_shortcut(self.downsample, x))


class ResNet(nnx.Module):
    """ResNet."""

    def __init__(self, config: ResNetConfig, layers: Layers) -> None:
        self.imagenet = config.stem == "imagenet"
        size, stride = (7, 2) if self.imagenet else (3, 1)
        self.conv1 = layers.conv(3, config.stem_width, size, strides=stride)
        self.bn1 = layers.norm(config.stem_width)
        channels = config.stem_width
        self.stages = len(config.widths)
        for stage, (count, width) in enumerate(
            zip(config.stage_sizes, config.widths, strict=True), start=1
        ):
            blocks = []
            for index in range(count):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(
                    ResidualBlock(config, layers, channels, width, stride, first=index == 0)
                )
                channels = width * config.expansion
            setattr(self, f"layer{stage}", nnx.List(blocks))
        self.fc = layers.linear(channels, config.num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pictures (N, H, W, 3) to logits."""
        x = nnx.relu(self.bn1(self.conv1(x)))
        if self.imagenet:
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for stage in range(1, self.stages + 1):
            for block in getattr(self, f"layer{stage}"):
                x = block(x)
        return self.fc(x.mean((1, 2)))
