"""Wide ResNet (Zagoruyko & Komodakis 2016, arXiv:1605.07146): few blocks, wide, pre-activated."""

import dataclasses
from typing import Literal, get_args

import jax
import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import rules
from flaxnets.layers import INITS, Init, Layers, Sequential, check_images, global_avg_pool

Block = Literal["basic", "bottleneck"]
ProjectionInput = Literal["activated", "raw"]
DropoutBefore = Literal["conv2", "bn2"]

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
            authors' code; or "raw", the block's input.
        dropout: rate, in every block (0.3 on CIFAR in the paper).
        dropout_before: "conv2": between the last ReLU and the last convolution (paper, section
            2.4); or "bn2": right after the first convolution.
        num_classes: outputs of the classifier.
        init: initialisation (``flaxnets.layers.Layers``).
    """

    depth: int = 28
    widen_factor: int = 10
    block: Block = "basic"
    projection_input: ProjectionInput = "activated"
    dropout: float = 0.0
    dropout_before: DropoutBefore = "conv2"
    num_classes: int = 10
    init: Init = "fan_out_zero_bias"

    def __post_init__(self) -> None:
        rules.require_choice("block", self.block, get_args(Block))
        rules.require_choice("projection_input", self.projection_input, get_args(ProjectionInput))
        rules.require_choice("dropout_before", self.dropout_before, get_args(DropoutBefore))
        rules.require_choice("init", self.init, INITS)
        rules.require_positive(
            depth=self.depth, widen_factor=self.widen_factor, num_classes=self.num_classes
        )
        rules.require_rate("dropout", self.dropout)
        _ = self.blocks_per_stage

    @property
    def blocks_per_stage(self) -> int:
        """The n of the depth rule."""
        per_block = 6 if self.block == "basic" else 9
        return rules.blocks_per_stage(f"WRN ({self.block} blocks)", self.depth, per_block, 4)


class PreactivationBlock(nnx.Module):
    """(norm, ReLU, convolution) two or three times, then the addition: ``conv_k(...) + shortcut``.

    Args:
        config: the network's.
        layers: makes the layers.
        in_channels: channels of the input.
        width: of the stage before widening: 16, 32 or 64.
        stride: of the first 3x3 convolution.
    """

    def __init__(
        self, config: WideResNetConfig, layers: Layers, in_channels: int, width: int, stride: int
    ) -> None:
        inner = width * config.widen_factor
        if config.block == "basic":
            plan = [(in_channels, inner, 3, stride), (inner, inner, 3, 1)]
        else:
            plan = [(in_channels, inner, 1, 1), (inner, inner, 3, stride), (inner, 4 * width, 1, 1)]
        self.depth = len(plan)
        for index, (channels, features, kernel_size, step) in enumerate(plan, start=1):
            setattr(self, f"bn{index}", layers.norm(channels))
            setattr(self, f"conv{index}", layers.conv(channels, features, kernel_size, stride=step))
        self.dropout = layers.dropout(config.dropout)
        self.drops_after_first = config.dropout_before == "bn2"
        self.reads_raw = config.projection_input == "raw"
        self.out_channels = plan[-1][1]
        self.downsample = nnx.data(
            Sequential([layers.conv(in_channels, self.out_channels, 1, stride=stride)])
            if stride != 1 or in_channels != self.out_channels
            else None
        )

    def __call__(self, x: jax.Array) -> jax.Array:
        """(N, H, W, C_in) to (N, H / stride, W / stride, C_out)."""
        y = x
        for index in range(1, self.depth + 1):
            y = jax.nn.relu(getattr(self, f"bn{index}")(y))
            if index == 1:
                activated = y
            if index == self.depth and not self.drops_after_first:
                y = self._drop(y)
            y = getattr(self, f"conv{index}")(y)
            if index == 1 and self.drops_after_first:
                y = self._drop(y)
        if self.downsample is None:
            return y + x
        return y + self.downsample(x if self.reads_raw else activated)

    def _drop(self, y: jax.Array) -> jax.Array:
        return y if self.dropout is None else self.dropout(y)


class WideResNet(nnx.Module):
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
        self.conv1 = layers.conv(3, channels, 3)
        for stage, width in enumerate(STAGE_WIDTHS, start=1):
            blocks = []
            for index in range(config.blocks_per_stage):
                stride = 2 if stage > 1 and index == 0 else 1
                blocks.append(PreactivationBlock(config, layers, channels, width, stride))
                channels = blocks[-1].out_channels
            setattr(self, f"layer{stage}", Sequential(blocks))
        self.bn1 = layers.norm(channels)
        self.fc = layers.linear(channels, config.num_classes)

    def features(self, x: jax.Array) -> dict[str, jax.Array]:
        """Every stage's output by name, in order: stem, stage1, stage2, stage3, pre_logits, logits.

        Args:
            x: (N, H, W, 3), normalised.

        Returns:
            Maps (N, h, w, c) for the stem and stages, ``pre_logits`` (N, F) and ``logits``
            (N, num_classes).
        """
        check_images(x)
        x = self.conv1(x)
        outputs = {"stem": x}
        for stage in range(1, len(STAGE_WIDTHS) + 1):
            x = getattr(self, f"layer{stage}")(x)
            outputs[f"stage{stage}"] = x
        outputs["pre_logits"] = global_avg_pool(jax.nn.relu(self.bn1(x)))
        outputs["logits"] = self.fc(outputs["pre_logits"])
        return outputs

    def __call__(self, x: jax.Array) -> jax.Array:
        """Pictures (N, H, W, 3) to logits (N, num_classes).

        Raises:
            ValueError: ``x`` is not a floating-point NHWC batch.
        """
        return self.features(x)["logits"]
