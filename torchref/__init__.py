"""PyTorch modules of ResNet, pre-activation ResNet, DenseNet and Wide ResNet.

They are the reference for the Flax networks.

Layouts are PyTorch's: images (N, 3, H, W), kernels OIHW. For what torchvision has, torchvision's
own module is the reference; ``create`` returns it.
"""

from torchref.densenet import DenseNet, densenet_blocks
from torchref.preact_resnet import PreActResNet
from torchref.registry import create, list_models
from torchref.resnet import ResNet
from torchref.wide_resnet import WideResNet

__all__ = [
    "DenseNet",
    "PreActResNet",
    "ResNet",
    "WideResNet",
    "create",
    "densenet_blocks",
    "list_models",
]
