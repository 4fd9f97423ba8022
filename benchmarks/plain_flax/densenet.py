"""DenseNet in plain Flax."""

import jax
import jax.numpy as jnp
from flax import nnx

from benchmarks.plain_flax.layers import Layers
from flaxnets import DenseNetConfig


class DenseLayer(nnx.Module):
    """norm, ReLU, convolution, once or with a bottleneck twice; concatenated to what it read."""

    def __init__(self, config: DenseNetConfig, layers: Layers, inputs: int) -> None:
        self.new_first = config.concat == "new_old"
        inner = 4 * config.growth_rate if config.bottleneck else inputs
        self.bottleneck = config.bottleneck
        self.norm1 = layers.norm(inputs)
        if config.bottleneck:
            self.conv1 = layers.conv(inputs, inner, 1)
            self.norm2 = layers.norm(inner)
            self.conv2 = layers.conv(inner, config.growth_rate, 3)
        else:
            self.conv1 = layers.conv(inputs, config.growth_rate, 3)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C) to (N, H, W, C + growth rate)."""
        y = self.conv1(nnx.relu(self.norm1(x)))
        if self.bottleneck:
            y = self.conv2(nnx.relu(self.norm2(y)))
        return jnp.concatenate([y, x] if self.new_first else [x, y], axis=-1)


class Transition(nnx.Module):
    """norm, ReLU (unless the config has none), 1x1 convolution, 2x2 average pooling."""

    def __init__(self, config: DenseNetConfig, layers: Layers, inputs: int, outputs: int) -> None:
        self.norm = layers.norm(inputs)
        self.relu = config.transition_relu
        self.conv = layers.conv(inputs, outputs, 1)

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C_in) to (N, H // 2, W // 2, C_out)."""
        x = self.norm(x)
        x = self.conv(nnx.relu(x) if self.relu else x)
        return nnx.avg_pool(x, (2, 2), strides=(2, 2))


class DenseNet(nnx.Module):
    """DenseNet, which normalises every map anew in every layer."""

    def __init__(self, config: DenseNetConfig, layers: Layers) -> None:
        channels = config.stem_width
        self.imagenet = config.stem == "imagenet"
        size, stride = (7, 2) if self.imagenet else (3, 1)
        self.conv0 = layers.conv(3, channels, size, strides=stride)
        if self.imagenet:
            self.norm0 = layers.norm(channels)
        self.sizes = config.block_sizes
        for index, size in enumerate(self.sizes, start=1):
            block = nnx.Module()
            for number in range(1, size + 1):
                setattr(block, f"denselayer{number}", DenseLayer(config, layers, channels))
                channels += config.growth_rate
            setattr(self, f"denseblock{index}", block)
            if index < len(self.sizes):
                kept = int(channels * config.compression)
                setattr(self, f"transition{index}", Transition(config, layers, channels, kept))
                channels = kept
        self.norm5 = layers.norm(channels)
        self.classifier = layers.linear(channels, config.num_classes)

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pictures (N, H, W, 3) to logits."""
        x = self.conv0(x)
        if self.imagenet:
            x = nnx.relu(self.norm0(x))
            x = nnx.max_pool(x, (3, 3), strides=(2, 2), padding=((1, 1), (1, 1)))
        for index, size in enumerate(self.sizes, start=1):
            block = getattr(self, f"denseblock{index}")
            for number in range(1, size + 1):
                x = getattr(block, f"denselayer{number}")(x)
            if index < len(self.sizes):
                x = getattr(self, f"transition{index}")(x)
        return self.classifier(nnx.relu(self.norm5(x)).mean((1, 2)))
