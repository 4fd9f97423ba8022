"""The networks as a Flax user would write them: ``nnx.Conv``, ``nnx.BatchNorm`` and nothing else.

They are made from the same configs and have the same names inside as ``flaxnets``' own, so that
weights can be moved from one to the other. Dropout is left out.
"""

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from benchmarks.plain_flax.densenet import DenseNet
from benchmarks.plain_flax.layers import Layers
from benchmarks.plain_flax.preactivation import PreActResNet, WideResNet
from benchmarks.plain_flax.resnet import ResNet
from flaxnets import DenseNetConfig, PreActResNetConfig, ResNetConfig
from flaxnets.registry import Config

__all__ = ["build"]


def build(config: Config, *, rngs: nnx.Rngs, dtype: Dtype = jnp.float32) -> nnx.Module:
    """The network that a config describes, without dropout, in training mode.

    Args:
        config: of one of the families.
        rngs: stream ``params``.
        dtype: compute dtype; parameters are float32.
    """
    match config:
        case DenseNetConfig():
            return DenseNet(config, Layers(rngs, dtype))
        case ResNetConfig():
            return ResNet(config, Layers(rngs, dtype, bias=config.conv_bias))
        case PreActResNetConfig():
            return PreActResNet(config, Layers(rngs, dtype, bias=config.conv_bias))
        case _:
            return WideResNet(config, Layers(rngs, dtype, bias=config.conv_bias))
