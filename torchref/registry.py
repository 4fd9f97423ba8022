"""The named networks: for each its class and its keyword arguments, as data."""

import inspect
from typing import Any

import torchvision
from torch import nn

from torchref.checks import blocks_from_depth, check_positive, nearest
from torchref.densenet import DenseNet, densenet_blocks
from torchref.resnet import ResNet
from torchref.wide_resnet import WideResNet

Arguments = dict[str, Any]

# He et al. 2015, table 1: block and blocks per stage of each depth.
IMAGENET_STAGES: dict[int, Arguments] = {
    18: {"block": "basic", "stage_sizes": (2, 2, 2, 2)},
    34: {"block": "basic", "stage_sizes": (3, 4, 6, 3)},
    50: {"block": "bottleneck", "stage_sizes": (3, 4, 6, 3)},
    101: {"block": "bottleneck", "stage_sizes": (3, 4, 23, 3)},
    152: {"block": "bottleneck", "stage_sizes": (3, 8, 36, 3)},
}

# Depth and widen factor of the WRNs in Zagoruyko & Komodakis 2016 and the codes that follow it.
WRN_SHAPES = (
    *((10, 1), (16, 1), (16, 2), (16, 4), (16, 8), (16, 10), (22, 8), (22, 10)),
    *((28, 1), (28, 2), (28, 10), (28, 12), (28, 20), (34, 10)),
    *((40, 1), (40, 2), (40, 4), (40, 8), (40, 10), (40, 14), (52, 1)),
)

KELLERJORDAN: Arguments = {
    "conv_bias": True,
    "shortcut": "zero_pad_end",
    "dropout": 0.5,
    "init": "torch",
}
WIDE_CIFAR: Arguments = {"stem": "cifar", "num_classes": 10, "init": "torch"}
PLAIN: Arguments = {"bottleneck": False, "compression": 1.0, "stem_width": 16}


def _cifar_resnet(depth: int, **arguments: Any) -> Arguments:
    """He et al. 2015, section 4.2: depth 6n+2, n basic blocks at 16, 32 and 64 channels."""
    n = blocks_from_depth("CIFAR ResNet", depth, 6, offset=2)
    shape = {"stage_sizes": (n, n, n), "widths": (16, 32, 64), "stem_width": 16}
    return {"stem": "cifar", "num_classes": 10} | shape | arguments


RESNETS: dict[str, Arguments] = {
    **{f"resnet{depth}": stages for depth, stages in IMAGENET_STAGES.items()},
    "wide_resnet50_2": IMAGENET_STAGES[50] | {"bottleneck_width": 2.0},
    "wide_resnet101_2": IMAGENET_STAGES[101] | {"bottleneck_width": 2.0},
    "pytorch_book_resnet34": IMAGENET_STAGES[34] | {"init": "torch"},
    "pytorch_book_resnet34_v1": IMAGENET_STAGES[34]
    | {"init": "torch", "project": "first_of_stage"},
    **{
        f"resnet{depth}": _cifar_resnet(depth, shortcut="zero_pad_both", init="fan_in")
        for depth in (20, 32, 44, 56, 110, 1202)
    },
    **{f"resnet{depth}_cifar": stages | WIDE_CIFAR for depth, stages in IMAGENET_STAGES.items()},
    **{
        f"kellerjordan_resnet{depth}": _cifar_resnet(depth, **KELLERJORDAN)
        for depth in (20, 32, 44, 56, 110)
    },
}

DENSENETS: dict[str, Arguments] = {
    "densenet_40_12": PLAIN | {"block_sizes": densenet_blocks(40, bottleneck=False)},
    "densenet_100_12": PLAIN | {"block_sizes": densenet_blocks(100, bottleneck=False)},
    "densenet_bc_40_12": {"block_sizes": densenet_blocks(40, bottleneck=True)},
    "densenet_bc_100_12": {"block_sizes": densenet_blocks(100, bottleneck=True)},
}

WIDE_RESNETS: dict[str, Arguments] = {
    f"wrn_{depth}_{widen_factor}": {"depth": depth, "widen_factor": widen_factor}
    for depth, widen_factor in WRN_SHAPES
}

MODELS: dict[str, tuple[type[nn.Module], Arguments]] = {
    name: (network, arguments)
    for network, table in ((ResNet, RESNETS), (DenseNet, DENSENETS), (WideResNet, WIDE_RESNETS))
    for name, arguments in table.items()
}

TORCHVISION = frozenset(
    [*(f"resnet{depth}" for depth in IMAGENET_STAGES), "wide_resnet50_2", "wide_resnet101_2"]
)


def list_models() -> list[str]:
    """Names that ``create`` knows, family by family."""
    return list(MODELS)


def create(name: str, **overrides: Any) -> nn.Module:
    """Build a named network with newly drawn weights, in training mode.

    For a network of torchvision's (resnet18 ... resnet152, wide_resnet50_2, wide_resnet101_2) with
    no override but ``num_classes`` this is torchvision's own module; all others are this package's.

    Args:
        name: one of ``list_models()``.
        overrides: keyword arguments of the network's class that replace the named network's.

    Returns:
        A module from images (N, 3, H, W) to logits (N, num_classes).

    Raises:
        ValueError: for an unknown name or override (the nearest are named), or a configuration that
            is not valid.
    """
    if name not in MODELS:
        raise ValueError(
            f"no network is called {name!r} (nearest: {nearest(name, MODELS)}); "
            "list_models() has all names"
        )
    network, arguments = MODELS[name]
    fields = inspect.signature(network).parameters
    for field in overrides:
        if field not in fields:
            raise ValueError(
                f"{network.__name__} has no option {field!r} (nearest: {nearest(field, fields)}); "
                f"its options are {', '.join(fields)}"
            )
    if name in TORCHVISION and set(overrides) <= {"num_classes"}:
        check_positive(**overrides)
        return getattr(torchvision.models, name)(weights=None, **overrides)
    return network(**(arguments | overrides))
