"""PyTorch modules of ResNet, DenseNet and Wide ResNet: the reference for the Flax networks.

Layouts are PyTorch's: images (N, 3, H, W), kernels OIHW. For what torchvision has, torchvision's
own module is the reference; ``create`` returns it.
"""

from torchref.densenet import DenseNet, densenet_blocks
from torchref.registry import create, list_models
from torchref.resnet import ResNet
from torchref.wide_resnet import WideResNet

__all__ = ["DenseNet", "ResNet", "WideResNet", "create", "densenet_blocks", "list_models"]
