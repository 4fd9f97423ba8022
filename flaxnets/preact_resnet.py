"""Pre-activation ResNet (He, Zhang, Ren & Sun 2016, arXiv:1603.05027): norm and ReLU come before
each convolution, and nothing stands between one addition and the next.

Module names: conv1, [bn0: the stem's norm], layer1.0.bn1, layer1.0.conv1, layer1.0.bn2,
layer1.0.conv2, ..., layer2.0.downsample.0, [bn1: the norm after the last addition, as in a WRN],
fc.
"""

import dataclasses
from typing import get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import rules
from flaxnets.layers import INITS, Init, Layers, Sequential, check_images, relu
from flaxnets.network import Network
from flaxnets.pooling import global_avg_pool
from flaxnets.preactivation import (
    Block,
    PreactivationBlock,
    PreactivationShortcut,
    ShortcutInput,
    StrideOn,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PreActResNetConfig:
    """Every architectural choice of a pre-activation ResNet; the stem is one 3x3 convolution.

    Attributes:
        block: "basic" (two 3x3 convolutions) or "bottleneck" (1x1, 3x3, 1x1; the output is 4 times
            as wide as the stage).
        stage_sizes: blocks in each stage; every stage but the first halves the map.
        widths: channels of each stage, as many as there are stages.
        stem_width: channels of the stem.
        num_classes: outputs of the classifier; 0 leaves it out, and the network ends with
            ``pre_logits``.
        shortcut: what stands where a block changes the shape: "projection" (1x1 convolution without
            norm) or "zero_pad_end" (option A of He 2015, zeros behind).
        shortcut_input: what the shortcut reads: "raw", the block's input (weiaicunzai);
            "activated", relu(bn1(x)) where the shape changes (He 2016's bottlenecks, kuangliu);
            "activated_first", relu(bn1(x)) in the first block of every stage, where the shape stays
            the same too (fb.resnet.torch's ``preresnet``, as He 2016 prescribes for the first
            unit).
        stride_on: the convolution that halves the map: a bottleneck's 1x1 "conv1" (He 2016,
            weiaicunzai) or 3x3 "conv2" (kuangliu); basic blocks have it on "conv1" everywhere
            upstream.
        conv_bias: biases on all convolutions (weiaicunzai).
        stem_norm: norm and ReLU after the stem (weiaicunzai).
        final_norm: norm and ReLU after the last addition (He 2016); kuangliu and weiaicunzai have
            none.
        init: initialisation (``flaxnets.layers.Layers``).
    """

    block: Block = "basic"
    stage_sizes: tuple[int, ...] = (2, 2, 2, 2)
    widths: tuple[int, ...] = (64, 128, 256, 512)
    stem_width: int = 64
    num_classes: int = 10
    shortcut: PreactivationShortcut = "projection"
    shortcut_input: ShortcutInput = "activated"
    stride_on: StrideOn = "conv1"
    conv_bias: bool = False
    stem_norm: bool = False
    final_norm: bool = True
    init: Init = "fan_out_zero_bias"

    def __post_init__(self) -> None:
        rules.require_choice("block", self.block, get_args(Block))
        rules.require_choice("shortcut", self.shortcut, get_args(PreactivationShortcut))
        rules.require_choice("shortcut_input", self.shortcut_input, get_args(ShortcutInput))
        rules.require_choice("stride_on", self.stride_on, get_args(StrideOn))
        rules.require_choice("init", self.init, INITS)
        rules.require_sizes(stage_sizes=self.stage_sizes, widths=self.widths)
        rules.require_positive(stem_width=self.stem_width)
        rules.require_flag(
            conv_bias=self.conv_bias, stem_norm=self.stem_norm, final_norm=self.final_norm
        )
        rules.require_classes(self.num_classes)
        rules.require(
            len(self.stage_sizes) == len(self.widths),
            f"stage_sizes={self.stage_sizes} and widths={self.widths} must name as many stages",
        )
        channels = (self.stem_width, *(width * self.expansion for width in self.widths))
        rules.require(
            self.shortcut == "projection" or list(channels) == sorted(channels),
            f"shortcut={self.shortcut!r} can only add channels, but the widths go {channels}; "
            "use shortcut='projection'",
        )

    @property
    def expansion(self) -> int:
        """Output channels of a block over the width of its stage."""
        return 4 if self.block == "bottleneck" else 1


def cifar_preact_resnet(
    depth: int, *, block: Block = "basic", **options: object
) -> PreActResNetConfig:
    """The thin CIFAR form (He 2016, section 4): depth 6n+2 with basic blocks, 9n+2 with
    bottlenecks; three stages of 16, 32 and 64 channels, bottlenecks' outputs 4 times as wide.

    Options are further ``PreActResNetConfig`` fields. By default basic blocks have the zero-padded
    shortcuts and the shared first activations of fb.resnet.torch, bottlenecks the projections of
    He's published code.

    Raises:
        ValueError: the depth does not fit.
    """
    per_block = 9 if block == "bottleneck" else 6
    n = rules.blocks_per_stage(f"pre-activation ResNet ({block} blocks)", depth, per_block, 2)
    defaults = {
        "shortcut": "projection" if block == "bottleneck" else "zero_pad_end",
        "shortcut_input": "activated_first",
    }
    return PreActResNetConfig(
        block=block,
        stage_sizes=(n, n, n),
        widths=(16, 32, 64),
        stem_width=16,
        **(defaults | options),  # type: ignore[arg-type]
    )


class PreActResNet(Network):
    """Pre-activation ResNet; module names stand at the head of this file.

    Args:
        config: the architecture.
        rngs: stream ``params``.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.
    """

    def __init__(
        self,
        config: PreActResNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.config = config
        layers = Layers(config.init, rngs, dtype, param_dtype)
        channels = config.stem_width
        self.conv1 = layers.conv(3, channels, 3, bias=config.conv_bias)
        self.bn0 = nnx.data(layers.norm(channels) if config.stem_norm else None)
        stages = zip(config.stage_sizes, config.widths, strict=True)
        for stage, (size, width) in enumerate(stages, start=1):
            blocks = []
            for index in range(size):
                block = PreactivationBlock(
                    config.block,
                    layers,
                    channels,
                    width,
                    width * config.expansion,
                    stride=2 if stage > 1 and index == 0 else 1,
                    stride_on=config.stride_on,
                    first=index == 0,
                    shortcut=config.shortcut,
                    shortcut_input=config.shortcut_input,
                    conv_bias=config.conv_bias,
                )
                blocks.append(block)
                channels = width * config.expansion
            setattr(self, f"layer{stage}", Sequential(blocks))
        self.bn1 = nnx.data(layers.norm(channels) if config.final_norm else None)
        self.fc = layers.classifier(channels, config.num_classes)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage's output by name (``Network.features``)."""
        check_images(x)
        x = self.conv1(x)
        if self.bn0 is not None:
            x = relu(self.bn0(x))
        outputs = {"stem": x}
        for stage in range(1, len(self.config.stage_sizes) + 1):
            x = getattr(self, f"layer{stage}")(x)
            outputs[f"stage{stage}"] = x
        if self.bn1 is not None:
            x = relu(self.bn1(x))
        outputs["pre_logits"] = global_avg_pool(x)
        if self.fc is not None:
            outputs["logits"] = self.fc(outputs["pre_logits"])
        return outputs
