"""Named networks: look one up, and build it."""

import dataclasses
import fnmatch

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import rules
from flaxnets.densenet import DenseNet, DenseNetConfig
from flaxnets.preact_resnet import PreActResNet, PreActResNetConfig
from flaxnets.resnet import ResNet, ResNetConfig
from flaxnets.wide_resnet import WideResNet, WideResNetConfig
from flaxnets.zoo import NETWORKS, Config, Network

__all__ = [
    "ALIASES",
    "NETWORKS",
    "Config",
    "Model",
    "Network",
    "build",
    "canonical_name",
    "count_parameters",
    "get_config",
    "list_models",
    "published_parameters",
]

Model = ResNet | PreActResNet | DenseNet | WideResNet

ALIASES = {"resnet": "resnet32", "densenet": "densenet_bc_100_12", "wrn": "wrn_28_10"}


def list_models(pattern: str = "*") -> list[str]:
    """The names that ``create`` takes; of those, the ones that match a glob such as "wrn_28_*"."""
    return [name for name in NETWORKS if fnmatch.fnmatchcase(name, pattern)]


def canonical_name(name: str) -> str:
    """The registry's name for ``name``, which may be a family alias: resnet, densenet or wrn.

    Raises:
        ValueError: there is no such network; near misses are suggested.
    """
    name = ALIASES.get(name, name)
    if name not in NETWORKS:
        near = rules.nearest(name, [*NETWORKS, *ALIASES])
        hint = f"did you mean {near}?" if near else "flaxnets.list_models() names them all"
        raise ValueError(f"there is no network named {name!r}; {hint}")
    return name


def get_config(name: str, **overrides: object) -> Config:
    """The config of a named network, with some of its fields replaced.

    Raises:
        ValueError: unknown name or field, or an invalid value.
    """
    config = NETWORKS[canonical_name(name)].config
    fields = [field.name for field in dataclasses.fields(config)]
    for field in overrides:
        rules.require_choice(f"an option of {name}", field, fields)
    return dataclasses.replace(config, **overrides)  # type: ignore[arg-type]


def published_parameters(name: str) -> int:
    """Trainable parameters of the upstream module, with its published number of classes."""
    return NETWORKS[canonical_name(name)].parameters


def build(
    config: Config,
    *,
    rngs: nnx.Rngs,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
) -> Model:
    """The network that a config describes, newly initialised, in training mode.

    Args:
        config: of one of the families.
        rngs: streams ``params`` and, with dropout, ``dropout``; ``nnx.Rngs(seed)`` has both.
        dtype: compute dtype; batch norm stays in float32 or wider.
        param_dtype: dtype of the parameters.

    Raises:
        TypeError: not a config of one of the families.
    """
    match config:
        case ResNetConfig():
            return ResNet(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        case PreActResNetConfig():
            return PreActResNet(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        case DenseNetConfig():
            return DenseNet(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        case WideResNetConfig():
            return WideResNet(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
    raise TypeError(
        f"build takes a config, got {config!r}; flaxnets.create builds a network by its name"
    )


def count_parameters(model: nnx.Module) -> int:
    """Trainable parameters (``nnx.Param``); running statistics are not counted."""
    return sum(leaf.size for leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)).leaves)
