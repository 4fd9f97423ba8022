"""The ways in which the published networks draw their first weights."""

import math
from typing import Literal, get_args

from torch import nn

from torchref.checks import check_choice

Init = Literal["fan_out", "fan_out_zero_bias", "fan_in", "fan_in_zero_bias", "xavier", "torch"]


def initialize(network: nn.Module, init: Init) -> None:
    """Draw the weights of every convolution and linear layer of ``network`` anew, in place.

    What a kind does not name keeps PyTorch's default: U(-b, b) with b = 1/sqrt(fan_in) for kernels
    and biases, scale 1 and bias 0 for batch norm.

    - ``"fan_out"``: convolutions N(0, 2 / (k * k * out)), as torchvision.
    - ``"fan_out_zero_bias"``: the same, and linear biases 0, as fb.resnet.torch and what follows it
      (the DenseNet and WRN code).
    - ``"fan_in"``: convolution and linear kernels N(0, 2 / fan_in) (He et al. 2015,
      arXiv:1502.01852), as akamaster.
    - ``"fan_in_zero_bias"``: convolutions as in ``"fan_in"``, and linear biases 0, as torchvision's
      DenseNet.
    - ``"xavier"``: convolutions U(-a, a) with a = sqrt(2) * sqrt(6 / (fan_in + fan_out)) (Glorot &
      Bengio 2010) and biases 0, as meliketoy.
    - ``"torch"``: PyTorch's defaults throughout, as kuangliu, weiaicunzai, KellerJordan and
      pytorch-book.

    Raises:
        ValueError: for another ``init``.
    """
    check_choice("init", init, get_args(Init))
    if init == "torch":
        return
    for module in network.modules():
        if isinstance(module, nn.Conv2d) and init == "xavier":
            nn.init.xavier_uniform_(module.weight, gain=math.sqrt(2))
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            mode: Literal["fan_in", "fan_out"] = (
                "fan_in" if init.startswith("fan_in") else "fan_out"
            )
            nn.init.kaiming_normal_(module.weight, mode=mode, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            if init == "fan_in":
                nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
            elif init.endswith("zero_bias"):
                nn.init.zeros_(module.bias)


def make_classifier(features: int, num_classes: int) -> nn.Module:
    """Build the linear layer that ends a network, or for 0 classes an identity without keys."""
    return nn.Linear(features, num_classes) if num_classes else nn.Identity()
