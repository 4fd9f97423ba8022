"""Wide ResNet (Zagoruyko & Komodakis 2016, arXiv:1605.07146): few blocks, wide, pre-activated."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import rules
from flaxnets.layers import INITS, Init, Layers, Sequential, check_images, relu
from flaxnets.network import Network
from flaxnets.pooling import global_avg_pool
from flaxnets.preactivation import Block, DropoutBefore, PreactivationBlock, StrideOn

ProjectionInput = Literal["activated", "raw"]

STAGE_WIDTHS = (16, 32, 64)


@dataclasses.dataclass(frozen=True, kw_only=True)
class WideResNetConfig:
    """Every architectural choice of a WRN.

    Attributes:
        depth: 6n+4 with basic blocks, 9n+4 with bottlenecks; counts the stem, the blocks'
            convolutions and the three projections, not the classifier.
        widen_factor: k; stages are 16k, 32k and 64k wide.
        block: "basic" (3x3, 3x3) or "bottleneck" (1x1 to k times the stage's width, 3x3, 1x1 to 4
            times the unwidened width: only the inside is widened, as in WRN-50-2).
        projection_input: what the 1x1 projection reads: "activated", relu(bn1(x)), as in the
            authors' code; or "raw", the block's input (meliketoy, weiaicunzai).
        stride_on: the convolution that halves the map: "conv1"; or "conv2", the first convolution
            then reading the full resolution (meliketoy), and the only choice with bottlenecks.
        conv_bias: biases on all convolutions, the stem's and the projections' too (meliketoy,
            weiaicunzai).
        dropout: rate, in every block (0.3 on CIFAR in the paper).
        dropout_before: "conv2": between the last ReLU and the last convolution (paper, section
            2.4); or "bn2": right after the first convolution (meliketoy).
        final_norm_momentum: share of the old running statistics that the last norm keeps, as at
            ``flaxnets.layers.BatchNorm``; meliketoy's keeps 0.1 (PyTorch's ``momentum=0.9``).
        num_classes: outputs of the classifier; 0 leaves it out, and the network ends with
            ``pre_logits``.
        init: initialisation (``flaxnets.layers.Layers``).
    """

    depth: int = 28
    widen_factor: int = 10
    block: Block = "basic"
    projection_input: ProjectionInput = "activated"
    stride_on: StrideOn = "conv1"
    conv_bias: bool = False
    dropout: float = 0.0
    dropout_before: DropoutBefore = "conv2"
    final_norm_momentum: float = 0.9
    num_classes: int = 10
    init: Init = "fan_out_zero_bias"

    def __post_init__(self) -> None:
        rules.require_choice("block", self.block, get_args(Block))
        rules.require_choice("projection_input", self.projection_input, get_args(ProjectionInput))
        rules.require_choice("stride_on", self.stride_on, get_args(StrideOn))
        rules.require_choice("dropout_before", self.dropout_before, get_args(DropoutBefore))
        rules.require_choice("init", self.init, INITS)
        rules.require_positive(depth=self.depth, widen_factor=self.widen_factor)
        rules.require_flag(conv_bias=self.conv_bias)
        rules.require_classes(self.num_classes)
        rules.require_rate("dropout", self.dropout)
        momentum = self.final_norm_momentum
        rules.require(
            isinstance(momentum, int | float) and 0.0 <= momentum < 1.0,
            f"final_norm_momentum={momentum!r} must be in [0, 1): the share of the old running "
            "statistics that is kept, 0.9 where PyTorch says momentum=0.1",
        )
        rules.require(
            self.block == "basic" or self.stride_on == "conv2",
            f"block='bottleneck' halves the map with its 3x3 convolution and needs "
            f"stride_on='conv2', got {self.stride_on!r}",
        )
        _ = self.blocks_per_stage

    @property
    def blocks_per_stage(self) -> int:
        """The n of the depth rule."""
        per_block = 6 if self.block == "basic" else 9
        return rules.blocks_per_stage(f"WRN ({self.block} blocks)", self.depth, per_block, 4)


class WideResNet(Network):
    """WRN. Module names: conv1, layer1.0.bn1, layer1.0.conv1, layer1.0.downsample.0, bn1, fc.

    Args:
        config: the architecture.
        rngs: streams ``params`` and, with dropout, ``dropout``.
        dtype: compute dtype.
        param_dtype: dtype of the parameters.
    """

    def __init__(
        self,
        config: WideResNetConfig,
        *,
        rngs: nnx.Rngs,
        dtype: Dtype = jnp.float32,
        param_dtype: Dtype = jnp.float32,
    ) -> None:
        self.config = config
        layers = Layers(config.init, rngs, dtype, param_dtype)
        channels = 16
        self.conv1 = layers.conv(3, channels, 3, bias=config.conv_bias)
        for stage, width in enumerate(STAGE_WIDTHS, start=1):
            inner = width * config.widen_factor
            out_channels = inner if config.block == "basic" else 4 * width
            blocks = []
            for index in range(config.blocks_per_stage):
                block = PreactivationBlock(
                    config.block,
                    layers,
                    channels,
                    inner,
                    out_channels,
                    stride=2 if stage > 1 and index == 0 else 1,
                    stride_on=config.stride_on,
                    first=index == 0,
                    shortcut_input=config.projection_input,
                    conv_bias=config.conv_bias,
                    dropout=config.dropout,
                    dropout_before=config.dropout_before,
                )
                blocks.append(block)
                channels = out_channels
            setattr(self, f"layer{stage}", Sequential(blocks))
        self.bn1 = layers.norm(channels, momentum=config.final_norm_momentum)
        self.fc = layers.classifier(channels, config.num_classes)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage's output by name (``Network.features``)."""
        check_images(x)
        x = self.conv1(x)
        outputs = {"stem": x}
        for stage in range(1, len(STAGE_WIDTHS) + 1):
            x = getattr(self, f"layer{stage}")(x)
            outputs[f"stage{stage}"] = x
        outputs["pre_logits"] = global_avg_pool(relu(self.bn1(x)))
        if self.fc is not None:
            outputs["logits"] = self.fc(outputs["pre_logits"])
        return outputs
