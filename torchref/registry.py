"""The named networks: for each its class and its keyword arguments, as data."""

import inspect
from typing import Any

import torchvision
from torch import nn

from torchref.checks import blocks_from_depth, check_classes, nearest
from torchref.densenet import DenseNet, TorchvisionDenseNet, densenet_blocks
from torchref.preact_resnet import PreActResNet
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
OLD_BOOK: Arguments = {"init": "torch", "project": "first_of_stage"}


def _cifar_resnet(depth: int, **arguments: Any) -> Arguments:
    """He et al. 2015, section 4.2: depth 6n+2, n basic blocks at 16, 32 and 64 channels.

    With bottlenecks (He et al. 2016) 9n+2.
    """
    period = 9 if arguments.get("block") == "bottleneck" else 6
    n = blocks_from_depth("CIFAR ResNet", depth, period, offset=2)
    shape = {"stage_sizes": (n, n, n), "widths": (16, 32, 64), "stem_width": 16}
    return {"num_classes": 10} | shape | arguments


RESNETS: dict[str, Arguments] = {
    **{f"resnet{depth}": stages for depth, stages in IMAGENET_STAGES.items()},
    "wide_resnet50_2": IMAGENET_STAGES[50] | {"bottleneck_width": 2.0},
    "wide_resnet101_2": IMAGENET_STAGES[101] | {"bottleneck_width": 2.0},
    "resnext50_32x4d": IMAGENET_STAGES[50] | {"groups": 32, "bottleneck_width": 0.0625},
    "resnext101_32x8d": IMAGENET_STAGES[101] | {"groups": 32, "bottleneck_width": 0.125},
    "resnext101_64x4d": IMAGENET_STAGES[101] | {"groups": 64, "bottleneck_width": 0.0625},
    "pytorch_book_resnet34": IMAGENET_STAGES[34] | {"init": "torch"},
    "pytorch_book_resnet34_v1": IMAGENET_STAGES[34] | OLD_BOOK,
    "pytorch_book_resnet34_ch6_v1": IMAGENET_STAGES[34]
    | OLD_BOOK
    | {"widths": (128, 256, 512, 512), "num_classes": 2},
    **{
        f"resnet{depth}": _cifar_resnet(
            depth, stem="cifar", shortcut="zero_pad_both", init="fan_in"
        )
        for depth in (20, 32, 44, 56, 110, 1202)
    },
    **{f"resnet{depth}_b": _cifar_resnet(depth, stem="cifar") for depth in (20, 32, 44, 56)},
    **{
        f"resnet{depth}_b": _cifar_resnet(depth, stem="cifar", init="fan_in")
        for depth in (110, 1202)
    },
    **{
        f"resnet{depth}": _cifar_resnet(
            depth, stem="cifar", block="bottleneck", init="fan_out_zero_bias"
        )
        for depth in (164, 1001)
    },
    **{f"resnet{depth}_cifar": stages | WIDE_CIFAR for depth, stages in IMAGENET_STAGES.items()},
    **{
        f"kellerjordan_resnet{depth}": _cifar_resnet(depth, stem="cifar", **KELLERJORDAN)
        for depth in (20, 32, 44, 56, 110)
    },
}

WEIAICUNZAI_PREACT: Arguments = {
    "shortcut_input": "raw",
    "conv_bias": True,
    "stem_norm": True,
    "final_norm": False,
    "num_classes": 100,
    "init": "torch",
}

PREACT_RESNETS: dict[str, Arguments] = {
    "preact_resnet110": _cifar_resnet(
        110, shortcut="zero_pad_end", shortcut_input="activated_first"
    ),
    "preact_resnet110_b": _cifar_resnet(110, shortcut_input="activated_first"),
    "preact_resnet164": _cifar_resnet(164, block="bottleneck"),
    "preact_resnet1001": _cifar_resnet(1001, block="bottleneck"),
    **{
        f"preact_resnet{depth}_cifar": stages
        | {"stride_on": "conv1" if depth < 50 else "conv2", "final_norm": False, "init": "torch"}
        for depth, stages in IMAGENET_STAGES.items()
    },
    **{
        f"weiaicunzai_preact_resnet{depth}_cifar": stages | WEIAICUNZAI_PREACT
        for depth, stages in IMAGENET_STAGES.items()
    },
}

# Blocks and growth rate of Huang et al. 2017, table 1; the stem has twice the growth rate.
IMAGENET_DENSENETS: dict[str, Arguments] = {
    name: {"block_sizes": sizes, "growth_rate": growth_rate, "stem_width": 2 * growth_rate}
    for name, sizes, growth_rate in (
        ("densenet121", (6, 12, 24, 16), 32),
        ("densenet161", (6, 12, 36, 24), 48),
        ("densenet169", (6, 12, 32, 32), 32),
        ("densenet201", (6, 12, 48, 32), 32),
        ("densenet264", (6, 12, 64, 48), 32),
    )
}
LIKE_TORCHVISION: Arguments = {
    "stem": "imagenet",
    "dropout_after": "last_conv",
    "num_classes": 1000,
    "init": "fan_in_zero_bias",
}
WEIAICUNZAI_DENSENET: Arguments = {
    "transition_relu": False,
    "num_classes": 100,
    "init": "torch",
}

DENSENETS: dict[str, Arguments] = {
    **{
        f"densenet_{depth}_{growth_rate}": PLAIN
        | {
            "block_sizes": densenet_blocks(depth, bottleneck=False),
            "growth_rate": growth_rate,
        }
        for depth, growth_rate in ((40, 12), (100, 12), (100, 24))
    },
    **{
        f"densenet_bc_{depth}_{growth_rate}": {
            "block_sizes": densenet_blocks(depth, bottleneck=True),
            "growth_rate": growth_rate,
            "stem_width": 2 * growth_rate,
        }
        for depth, growth_rate in (
            *((40, 12), (40, 36), (40, 48), (40, 60)),
            *((100, 12), (190, 40), (250, 24)),
        )
    },
    **{name: shape | LIKE_TORCHVISION for name, shape in IMAGENET_DENSENETS.items()},
    **{
        f"{name}_cifar": shape | {"concat": "new_old", "init": "torch"}
        for name, shape in IMAGENET_DENSENETS.items()
        if name != "densenet264"
    },
    **{
        f"weiaicunzai_{name}_cifar": shape | WEIAICUNZAI_DENSENET
        for name, shape in IMAGENET_DENSENETS.items()
        if name != "densenet264"
    },
    "densenet_cifar": {"block_sizes": (6, 12, 24, 16), "concat": "new_old", "init": "torch"},
}

BIASED_WRN: Arguments = {"conv_bias": True, "projection_input": "raw"}
MELIKETOY: Arguments = BIASED_WRN | {
    "stride_on": "conv2",
    "dropout": 0.3,
    "dropout_before": "bn2",
    "final_norm_momentum": 0.1,
    "init": "xavier",
}

WIDE_RESNETS: dict[str, Arguments] = {
    **{
        f"wrn_{depth}_{widen_factor}": {"depth": depth, "widen_factor": widen_factor}
        for depth, widen_factor in WRN_SHAPES
    },
    **{
        f"meliketoy_wrn_{depth}_{widen_factor}": MELIKETOY
        | {"depth": depth, "widen_factor": widen_factor}
        for depth, widen_factor in ((16, 8), (28, 10), (28, 20), (40, 10), (40, 14))
    },
    "weiaicunzai_wrn_40_10": BIASED_WRN
    | {"depth": 40, "widen_factor": 10, "dropout": 0.5, "num_classes": 100, "init": "torch"},
}

MODELS: dict[str, tuple[type[nn.Module], Arguments]] = {
    name: (network, arguments)
    for network, table in (
        (ResNet, RESNETS),
        (PreActResNet, PREACT_RESNETS),
        (DenseNet, DENSENETS),
        (WideResNet, WIDE_RESNETS),
    )
    for name, arguments in table.items()
}

TORCHVISION = frozenset(
    [
        *(f"resnet{depth}" for depth in IMAGENET_STAGES),
        *("wide_resnet50_2", "wide_resnet101_2"),
        *("resnext50_32x4d", "resnext101_32x8d", "resnext101_64x4d"),
        *("densenet121", "densenet161", "densenet169", "densenet201"),
    ]
)


def list_models() -> list[str]:
    """Names that ``create`` knows, family by family."""
    return list(MODELS)


def create(name: str, **overrides: Any) -> nn.Module:
    """Build a named network with newly drawn weights, in training mode.

    For a network of torchvision's (``TORCHVISION``) with no override but a positive ``num_classes``
    this is torchvision's own module (a DenseNet's without the "features." in its names, see
    ``torchref.densenet.TorchvisionDenseNet``); all others are this package's.

    Args:
        name: one of ``list_models()``.
        overrides: keyword arguments of the network's class that replace the named network's.

    Returns:
        A module from images (N, 3, H, W) to logits (N, num_classes), or with ``num_classes=0`` to
        what the classifier would read.

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
        classes: Any = overrides.get("num_classes", 1000)
        check_classes(classes)
        if classes and network is DenseNet:
            return TorchvisionDenseNet(name, num_classes=classes)
        if classes:
            return getattr(torchvision.models, name)(weights=None, num_classes=classes)
    return network(**(arguments | overrides))
