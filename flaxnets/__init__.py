"""ResNet, DenseNet and Wide ResNet in JAX/Flax NNX, with PyTorch's semantics and names.

>>> import flaxnets
>>> from flax import nnx
>>> model = flaxnets.create("densenet_bc_100_12", num_classes=10, rngs=nnx.Rngs(0))
"""

from flaxnets.densenet import DenseNet, DenseNetConfig, cifar_densenet
from flaxnets.layout import torch_name
from flaxnets.matching import CheckpointError
from flaxnets.preact_resnet import PreActResNet, PreActResNetConfig, cifar_preact_resnet
from flaxnets.pretrained import create
from flaxnets.published import NetworkInfo, info
from flaxnets.registry import (
    build,
    canonical_name,
    count_parameters,
    get_config,
    list_models,
    published_parameters,
)
from flaxnets.resnet import ResNet, ResNetConfig, cifar_resnet
from flaxnets.summary import LayerSummary, Summary, summary
from flaxnets.torch_bridge import (
    load_torch,
    momentum_from_torch,
    momentum_to_torch,
    save_torch,
    to_torch,
)
from flaxnets.wide_resnet import WideResNet, WideResNetConfig

__all__ = [
    "CheckpointError",
    "DenseNet",
    "DenseNetConfig",
    "LayerSummary",
    "NetworkInfo",
    "PreActResNet",
    "PreActResNetConfig",
    "ResNet",
    "ResNetConfig",
    "Summary",
    "WideResNet",
    "WideResNetConfig",
    "build",
    "canonical_name",
    "cifar_densenet",
    "cifar_preact_resnet",
    "cifar_resnet",
    "count_parameters",
    "create",
    "get_config",
    "info",
    "list_models",
    "load_torch",
    "momentum_from_torch",
    "momentum_to_torch",
    "published_parameters",
    "save_torch",
    "summary",
    "to_torch",
    "torch_name",
]
