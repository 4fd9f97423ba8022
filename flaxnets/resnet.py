"""ResNet (He, Zhang, Ren & Sun 2015, arXiv:1512.03385), in its ImageNet and its CIFAR forms."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import rules
from flaxnets.layers import (
    INITS,
    Init,
    Layers,
    Sequential,
    check_images,
    relu,
)
from flaxnets.network import Network
from flaxnets.pooling import global_avg_pool, max_pool_3x3_stride_2
from flaxnets.shortcuts import SHORTCUTS, Shortcut, make_shortcut

Block = Literal["basic", "bottleneck"]
Stem = Literal["imagenet", "cifar"]
Project = Literal["on_change", "first_of_stage", "every_block"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class ResNetConfig:
    """Every architectural choice of a ResNet.

    Attributes:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1; the 3x3 carries the
            stride, the output is 4 times as wide as the stage).
        stage_sizes: blocks in each stage; every stage but the first halves the map.
        widths: channels of each stage, as many as there are stages.
        stem: "imagenet" (7x7 convolution of stride 2, then 3x3 max-pooling) or "cifar" (3x3
            convolution).
        stem_width: channels of the stem.
        num_classes: outputs of the classifier; 0 leaves it out, and the network ends with
            ``pre_logits``.
        shortcut: what stands where a block changes the shape (``flaxnets.shortcuts``).
        project: where that is: "on_change" of the shape; "first_of_stage" also where the first
            block of the first stage keeps the shape (old pytorch-book); "every_block" (option C of
            He 2015).
        conv_bias: biases on the convolutions (KellerJordan).
        bottleneck_width: factor on the inner width of a bottleneck (2 in WRN-50-2).
        groups: of a bottleneck's 3x3 convolution, each as wide as ``bottleneck_width`` makes it: 32
            with width 4/64 are ResNeXt-50 32x4d (Xie et al. 2017, arXiv:1611.05431).
        dropout: rate of dropout after bn2, before the addition, in the first block of each stage
            (KellerJordan).
        init: initialisation (``flaxnets.layers.Layers``).
    """

    block: Block = "basic"
    stage_sizes: tuple[int, ...] = (3, 4, 6, 3)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem: Stem = "imagenet"
    stem_width: int = 64
    num_classes: int = 1000
    shortcut: Shortcut = "projection"
    project: Project = "on_change"
    conv_bias: bool = False
    bottleneck_width: float = 1.0
    groups: int = 1
    dropout: float = 0.0
    init: Init = "fan_out"

    def __post_init__(self) -> None:
        rules.require_choice("block", self.block, get_args(Block))
        rules.require_choice("stem", self.stem, get_args(Stem))
        rules.require_choice("shortcut", self.shortcut, SHORTCUTS)
        rules.require_choice("project", self.project, get_args(Project))
        rules.require_choice("init", self.init, INITS)
        rules.require_sizes(stage_sizes=self.stage_sizes, widths=self.widths)
        rules.require_positive(stem_width=self.stem_width, groups=self.groups)
        rules.require_flag(conv_bias=self.conv_bias)
        rules.require_classes(self.num_classes)
        rules.require(
            len(self.stage_sizes) == len(self.widths),
            f"stage_sizes={self.stage_sizes} and widths={self.widths} must name as many stages",
        )
        rules.require(
            self.block == "bottleneck" or self.bottleneck_width == 1,
            f"bottleneck_width={self.bottleneck_width} needs block='bottleneck'; "
            "basic blocks are as wide as their stage",
        )
        rules.require(
            isinstance(self.bottleneck_width, int | float)
            and self.bottleneck_width * min(self.widths) >= 1,
            f"bottleneck_width={self.bottleneck_width!r} leaves no channel of {min(self.widths)}",
        )
        rules.require(
            self.block == "bottleneck" or self.groups == 1,
            f"groups={self.groups} needs block='bottleneck'; "
            "the convolutions of basic blocks have one group",
        )
        rules.require_rate("dropout", self.dropout)
        channels = (self.stem_width, *(width * self.expansion for width in self.widths))
        rules.require(
            self.shortcut.startswith("projection") or list(channels) == sorted(channels),
            f"shortcut={self.shortcut!r} can only add channels, but the widths go {channels}; "
            "use shortcut='projection'",
        )

    @property
    def expansion(self) -> int:
        """Output channels of a block over the width of its stage."""
        return 4 if self.block == "bottleneck" else 1

    def inner_width(self, width: int) -> int:
        """Channels of a bottleneck's 3x3 convolution in a stage of that width."""
        return int(width * self.bottleneck_width) * self.groups


def cifar_resnet(
    depth: int, *, block: Block = "basic", num_classes: int = 10, **options: object
) -> ResNetConfig:
    """The thin CIFAR form (He 2015, section 4.2): three stages of 16, 32 and 64 channels, or of 64,
    128 and 256 with bottlenecks (He 2016).

    Options are further ``ResNetConfig`` fields; by default zero-padded shortcuts (option A) as
    akamaster pads, with his initialisation.

    Raises:
        ValueError: the depth is not 6n+2, or 9n+2 with bottlenecks.
    """
    n = rules.blocks_per_stage("CIFAR ResNet", depth, 9 if block == "bottleneck" else 6, 2)
    defaults = {"shortcut": "zero_pad_both", "init": "fan_in"}
    return ResNetConfig(
        block=block,
        stage_sizes=(n, n, n),
        widths=(16, 32, 64),
        stem="cifar",
        stem_width=16,
        num_classes=num_classes,
        **(defaults | options),  # type: ignore[arg-type]
    )


class ResidualBlock(nnx.Module):
    """Convolutions and norms, an addition, a ReLU: ``relu(bn_k(conv_k(...)) + shortcut(x))``.

    Args:
        config: the network's.
        layers: makes the layers.
        in_channels: channels of the input.
        width: of the stage; the output has ``width * config.expansion`` channels.
        stride: of the 3x3 convolution that may have one (the first, or a bottleneck's only one).
        first: whether it is the first block of its stage.
    """

    def __init__(
        self,
        config: ResNetConfig,
        layers: Layers,
        in_channels: int,
        width: int,
        stride: int,
        first: bool,
    ) -> None:
        out_channels = width * config.expansion
        if config.block == "basic":
            plan = [(in_channels, width, 3, stride, 1), (width, width, 3, 1, 1)]
        else:
            inner = config.inner_width(width)
            plan = [
                (in_channels, inner, 1, 1, 1),
                (inner, inner, 3, stride, config.groups),
                (inner, out_channels, 1, 1, 1),
            ]
        self.depth = len(plan)
        for index, (channels, features, kernel_size, step, groups) in enumerate(plan, start=1):
            convolution = layers.conv(
                channels, features, kernel_size, stride=step, groups=groups, bias=config.conv_bias
            )
            setattr(self, f"conv{index}", convolution)
            setattr(self, f"bn{index}", layers.norm(features))
        self.dropout = layers.dropout(config.dropout if first else 0.0)
        changes = stride != 1 or in_channels != out_channels
        shortcut = {"on_change": changes, "first_of_stage": first or changes, "every_block": True}
        self.downsample = nnx.data(
            make_shortcut(config.shortcut, layers, in_channels, out_channels, stride)
            if shortcut[config.project]
            else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C_in) to (N, H / stride, W / stride, C_out)."""
        y = x
        for index in range(1, self.depth + 1):
            y = getattr(self, f"bn{index}")(getattr(self, f"conv{index}")(y))
            if index < self.depth:
                y = relu(y)
        if self.dropout is not None:
            y = self.dropout(y)
        return relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet(Network):
    """ResNet. Module names are torchvision's: conv1, bn1, layer1.0.conv1, layer2.0.downsample.0,
    fc.

    Args:
        config: the architecture.
        rngs: streams ``params`` and, with dropout, ``dropout``.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.
    """

    def __init__(
        self,
        config: ResNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.config = config
        layers = Layers(config.init, rngs, dtype, param_dtype)
        size, stride = (7, 2) if config.stem == "imagenet" else (3, 1)
        self.conv1 = layers.conv(3, config.stem_width, size, stride=stride, bias=config.conv_bias)
        self.bn1 = layers.norm(config.stem_width)
        channels = config.stem_width
        stages = zip(config.stage_sizes, config.widths, strict=True)
        for stage, (blocks, width) in enumerate(stages, start=1):
            made = []
            for block in range(blocks):
                stride = 2 if stage > 1 and block == 0 else 1
                made.append(
                    ResidualBlock(config, layers, channels, width, stride, first=block == 0)
                )
                channels = width * config.expansion
            setattr(self, f"layer{stage}", Sequential(made))
        self.fc = layers.classifier(channels, config.num_classes)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage's output by name (``Network.features``)."""
        check_images(x)
        x = relu(self.bn1(self.conv1(x)))
        if self.config.stem == "imagenet":
            x = max_pool_3x3_stride_2(x)
        outputs = {"stem": x}
        for stage in range(1, len(self.config.stage_sizes) + 1):
            x = getattr(self, f"layer{stage}")(x)
            outputs[f"stage{stage}"] = x
        outputs["pre_logits"] = global_avg_pool(x)
        if self.fc is not None:
            outputs["logits"] = self.fc(outputs["pre_logits"])
        return outputs
