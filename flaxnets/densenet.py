"""DenseNet (Huang, Liu, van der Maaten & Weinberger 2017, arXiv:1608.06993)."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import rules
from flaxnets.dense_run import LENGTH, can_run, run_layers
from flaxnets.layers import (
    INITS,
    FeatureMaps,
    Init,
    Layers,
    check_images,
    relu,
    standardize,
)
from flaxnets.network import Network
from flaxnets.pooling import avg_pool, global_avg_pool, max_pool_3x3_stride_2

Stem = Literal["imagenet", "cifar"]
Concat = Literal["old_new", "new_old"]
DropoutAfter = Literal["every_conv", "last_conv"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class DenseNetConfig:
    """Every architectural choice of a DenseNet.

    Attributes:
        block_sizes: dense layers in each block.
        growth_rate: k, channels that each layer adds.
        stem: "imagenet" (7x7 convolution of stride 2, norm, ReLU, 3x3 max-pooling) or "cifar" (3x3
            convolution).
        stem_width: channels of the stem.
        bottleneck: a 1x1 convolution to 4k channels before each 3x3 (the "B" of DenseNet-BC).
        compression: theta in (0, 1]; a transition keeps floor(theta * channels) (the "C").
        concat: order of the channels in a block: "old_new", a layer's new maps behind those that it
            read; "new_old", in front of them (kuangliu). The weights' shapes are the same.
        transition_relu: whether a transition's norm is followed by a ReLU; weiaicunzai has none.
        dropout: rate.
        dropout_after: "every_conv" but the stem's (Huang 2017, and his code); or "last_conv": after
            the last convolution of each dense layer only (torchvision's ``drop_rate``).
        num_classes: outputs of the classifier; 0 leaves it out, and the network ends with
            ``pre_logits``.
        init: initialisation (``flaxnets.layers.Layers``).
    """

    block_sizes: tuple[int, ...] = (16, 16, 16)
    growth_rate: int = 12
    stem: Stem = "cifar"
    stem_width: int = 24
    bottleneck: bool = True
    compression: float = 0.5
    concat: Concat = "old_new"
    transition_relu: bool = True
    dropout: float = 0.0
    dropout_after: DropoutAfter = "every_conv"
    num_classes: int = 10
    init: Init = "fan_out_zero_bias"

    def __post_init__(self) -> None:
        rules.require_choice("stem", self.stem, get_args(Stem))
        rules.require_choice("concat", self.concat, get_args(Concat))
        rules.require_choice("dropout_after", self.dropout_after, get_args(DropoutAfter))
        rules.require_choice("init", self.init, INITS)
        rules.require_sizes(block_sizes=self.block_sizes)
        rules.require_positive(growth_rate=self.growth_rate, stem_width=self.stem_width)
        rules.require_flag(bottleneck=self.bottleneck, transition_relu=self.transition_relu)
        rules.require_classes(self.num_classes)
        rules.require(
            isinstance(self.compression, int | float) and 0.0 < self.compression <= 1.0,
            f"compression={self.compression!r} must satisfy 0 < compression <= 1; "
            "1.0 keeps every channel, the paper's BC networks use 0.5",
        )
        channels = self.stem_width
        for block, size in enumerate(self.block_sizes[:-1], start=1):
            channels = int((channels + size * self.growth_rate) * self.compression)
            rules.require(
                channels > 0,
                f"compression={self.compression!r} leaves the transition no channel "
                f"after block {block}",
            )
        rules.require_rate("dropout", self.dropout)


def cifar_densenet(
    depth: int,
    growth_rate: int,
    *,
    bottleneck: bool = True,
    compression: float = 0.5,
    stem_width: int | None = None,
    **options: object,
) -> DenseNetConfig:
    """The CIFAR form (Huang 2017, section 3): three blocks, depth 3n+4, or 6n+4 with bottlenecks.

    Args:
        depth: L, counting the stem, every convolution, two transitions and the classifier.
        growth_rate: k.
        bottleneck: as in ``DenseNetConfig``.
        compression: as in ``DenseNetConfig``.
        stem_width: by default the paper's: 2k with bottlenecks or compression, else 16.
        options: further ``DenseNetConfig`` fields.

    Raises:
        ValueError: the depth does not fit.
    """
    kind = "DenseNet-BC" if bottleneck else "DenseNet without bottlenecks"
    n = rules.blocks_per_stage(kind, depth, 6 if bottleneck else 3, 4)
    if stem_width is None:
        stem_width = 16 if compression == 1 and not bottleneck else 2 * growth_rate
    return DenseNetConfig(
        block_sizes=(n, n, n),
        growth_rate=growth_rate,
        bottleneck=bottleneck,
        compression=compression,
        stem_width=stem_width,
        **options,  # type: ignore[arg-type]
    )


class DenseLayer(nnx.Module):
    """norm, ReLU, 3x3 convolution to k channels; with a bottleneck the same after a 1x1 to 4k."""

    def __init__(self, config: DenseNetConfig, layers: Layers, in_channels: int) -> None:
        growth_rate = config.growth_rate
        inner = 4 * growth_rate if config.bottleneck else growth_rate
        self.bottleneck = config.bottleneck
        self.norm1 = layers.norm(in_channels)
        self.conv1 = layers.conv(in_channels, inner, 1 if config.bottleneck else 3)
        drops_first = not config.bottleneck or config.dropout_after == "every_conv"
        self.dropout1 = layers.dropout(config.dropout if drops_first else 0.0)
        if config.bottleneck:
            self.norm2 = layers.norm(inner)
            self.conv2 = layers.conv(inner, growth_rate, 3)
            self.dropout2 = layers.dropout(config.dropout)

    def __call__(self, maps: FeatureMaps) -> jax.Array:
        """All maps so far, (N, H, W, C_in), to the k new ones (N, H, W, k)."""
        return self.grow(self.conv1(relu(self.norm1(maps))))

    def grow(self, y: jax.Array) -> jax.Array:
        """What follows the first convolution."""
        if self.dropout1 is not None:
            y = self.dropout1(y)
        if self.bottleneck:
            y = self.conv2(relu(self.norm2(y)))
            if self.dropout2 is not None:
                y = self.dropout2(y)
        return y


class DenseBlock(nnx.Module):
    """Layers that each read the maps of all before them.

    In training mode the batch statistics of a map are the same for every layer that reads it, so
    each map is normalised once, when it is made; a layer's norm then applies only its own scale and
    bias and keeps its own running statistics. The work of normalising grows with L, not with L^2.
    """

    def __init__(self, config: DenseNetConfig, layers: Layers, in_channels: int, size: int) -> None:
        self.size = size
        self.new_first = config.concat == "new_old"
        self.use_running_average = False
        for index in range(size):
            layer = DenseLayer(config, layers, in_channels + index * config.growth_rate)
            setattr(self, f"denselayer{index + 1}", layer)

    def __call__(self, x: jax.Array) -> FeatureMaps:
        """(N, H, W, C_in) to maps of (N, H, W, C_in + size * k), in the config's order."""
        observe = FeatureMaps if self.use_running_average else standardize
        maps = observe(x)
        layers = [getattr(self, f"denselayer{index}") for index in range(1, self.size + 1)]
        for first in range(0, self.size, LENGTH):
            run = layers[first : first + LENGTH]
            if all(type(layer) is DenseLayer for layer in run) and can_run(run, maps):
                maps = run_layers(run, maps, new_first=self.new_first)
                continue
            for layer in run:
                new = observe(layer(maps))
                maps = new + maps if self.new_first else maps + new
        return maps


class Transition(nnx.Module):
    """norm, ReLU (unless the config has none), 1x1 convolution, 2x2 average pooling."""

    def __init__(
        self, config: DenseNetConfig, layers: Layers, in_channels: int, out_channels: int
    ) -> None:
        self.norm = layers.norm(in_channels)
        self.relu = config.transition_relu
        self.conv = layers.conv(in_channels, out_channels, 1)
        drops = config.dropout_after == "every_conv"
        self.dropout = layers.dropout(config.dropout if drops else 0.0)

    def __call__(self, maps: FeatureMaps) -> jax.Array:
        """(N, H, W, C_in) to (N, H // 2, W // 2, C_out)."""
        y = self.norm(maps)
        y = self.conv(relu(y) if self.relu else y)
        if self.dropout is not None:
            y = self.dropout(y)
        return avg_pool(y, 2)


class DenseNet(Network):
    """DenseNet.

    Module names are torchvision's without "features.": conv0, denseblock1.denselayer1.conv1,
    transition1.conv, norm5, classifier.

    Args:
        config: the architecture.
        rngs: streams ``params`` and, with dropout, ``dropout``.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.
    """

    def __init__(
        self,
        config: DenseNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.config = config
        layers = Layers(config.init, rngs, dtype, param_dtype)
        channels = config.stem_width
        if config.stem == "imagenet":
            self.conv0 = layers.conv(3, channels, 7, stride=2)
            self.norm0 = layers.norm(channels)
        else:
            self.conv0 = layers.conv(3, channels, 3)
        last = len(config.block_sizes)
        for index, size in enumerate(config.block_sizes, start=1):
            block = DenseBlock(config, layers, channels, size)
            setattr(self, f"denseblock{index}", block)
            channels += size * config.growth_rate
            if index < last:
                kept = int(channels * config.compression)
                setattr(self, f"transition{index}", Transition(config, layers, channels, kept))
                channels = kept
        self.norm5 = layers.norm(channels)  # torchvision's name, whatever the number of blocks
        self.classifier = layers.classifier(channels, config.num_classes)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage's output by name (``Network.features``)."""
        check_images(x)
        x = self.conv0(x)
        if self.config.stem == "imagenet":
            x = max_pool_3x3_stride_2(relu(self.norm0(x)))
        outputs = {"stem": x}
        last = len(self.config.block_sizes)
        for index in range(1, last + 1):
            maps = getattr(self, f"denseblock{index}")(x)
            outputs[f"stage{index}"] = maps.values
            if index < last:
                x = getattr(self, f"transition{index}")(maps)
        outputs["pre_logits"] = global_avg_pool(relu(self.norm5(maps)))
        if self.classifier is not None:
            outputs["logits"] = self.classifier(outputs["pre_logits"])
        return outputs
