"""The named networks: a name is a config, with its published parameter count, as data."""

import dataclasses

import jax.numpy as jnp
from flax import nnx
from flax.typing import Dtype

from flaxnets import rules
from flaxnets.densenet import DenseNet, DenseNetConfig, cifar_densenet
from flaxnets.resnet import ResNet, ResNetConfig, cifar_resnet
from flaxnets.wide_resnet import WideResNet, WideResNetConfig

Config = ResNetConfig | DenseNetConfig | WideResNetConfig
Model = ResNet | DenseNet | WideResNet

ALIASES = {"resnet": "resnet32", "densenet": "densenet_bc_100_12", "wrn": "wrn_28_10"}


@dataclasses.dataclass(frozen=True)
class Network:
    """One row of the registry.

    Attributes:
        config: the architecture, with its published number of classes.
        parameters: trainable parameters of the upstream module with that number of classes.
        source: the upstream project, or paper, that the count and the details come from.
    """

    config: Config
    parameters: int
    source: str


def _imagenet(blocks: tuple[int, ...], **options: object) -> ResNetConfig:
    return ResNetConfig(stage_sizes=blocks, **options)  # type: ignore[arg-type]


def _cifar_wide(config: ResNetConfig) -> ResNetConfig:
    """kuangliu's form of an ImageNet ResNet: a 3x3 stem without pooling, 10 classes."""
    return dataclasses.replace(config, stem="cifar", num_classes=10, init="torch")


def _kellerjordan(depth: int) -> ResNetConfig:
    return cifar_resnet(depth, shortcut="zero_pad_end", conv_bias=True, dropout=0.5, init="torch")


_RESNETS = {
    18: _imagenet((2, 2, 2, 2)),
    34: _imagenet((3, 4, 6, 3)),
    50: _imagenet((3, 4, 6, 3), block="bottleneck"),
    101: _imagenet((3, 4, 23, 3), block="bottleneck"),
    152: _imagenet((3, 8, 36, 3), block="bottleneck"),
}

_TORCHVISION_PARAMETERS = {
    18: 11_689_512,
    34: 21_797_672,
    50: 25_557_032,
    101: 44_549_160,
    152: 60_192_808,
}

_KUANGLIU_PARAMETERS = {
    18: 11_173_962,
    34: 21_282_122,
    50: 23_520_842,
    101: 42_512_970,
    152: 58_156_618,
}

_AKAMASTER_PARAMETERS = {
    20: 269_722,
    32: 464_154,
    44: 658_586,
    56: 853_018,
    110: 1_727_962,
    1202: 19_421_274,
}

_KELLERJORDAN_PARAMETERS = {20: 270_410, 32: 465_290, 44: 660_170, 56: 855_050, 110: 1_732_010}

_WRN_PARAMETERS = {
    (10, 1): 77_850,
    (16, 1): 175_066,
    (16, 2): 691_674,
    (16, 4): 2_748_890,
    (16, 8): 10_961_370,
    (16, 10): 17_116_634,
    (22, 8): 17_158_106,
    (22, 10): 26_797_914,
    (28, 1): 369_498,
    (28, 2): 1_467_610,
    (28, 10): 36_479_194,
    (28, 12): 52_517_850,
    (28, 20): 145_815_514,
    (34, 10): 46_160_474,
    (40, 1): 563_930,
    (40, 2): 2_243_546,
    (40, 4): 8_949_210,
    (40, 8): 35_748_314,
    (40, 10): 55_841_754,
    (40, 14): 109_416_410,
    (52, 1): 758_362,
}

NETWORKS: dict[str, Network] = {
    **{
        f"resnet{depth}": Network(config, _TORCHVISION_PARAMETERS[depth], "torchvision")
        for depth, config in _RESNETS.items()
    },
    "wide_resnet50_2": Network(
        dataclasses.replace(_RESNETS[50], bottleneck_width=2.0), 68_883_240, "torchvision"
    ),
    "wide_resnet101_2": Network(
        dataclasses.replace(_RESNETS[101], bottleneck_width=2.0), 126_886_696, "torchvision"
    ),
    "pytorch_book_resnet34": Network(
        dataclasses.replace(_RESNETS[34], init="torch"), 21_797_672, "pytorch-book, chapter 4"
    ),
    "pytorch_book_resnet34_v1": Network(
        dataclasses.replace(_RESNETS[34], project="first_of_stage", init="torch"),
        21_801_896,
        "pytorch-book v0.3 to v1.0, chapter 4",
    ),
    **{
        f"resnet{depth}": Network(cifar_resnet(depth), count, "akamaster")
        for depth, count in _AKAMASTER_PARAMETERS.items()
    },
    **{
        f"kellerjordan_resnet{depth}": Network(_kellerjordan(depth), count, "KellerJordan")
        for depth, count in _KELLERJORDAN_PARAMETERS.items()
    },
    **{
        f"resnet{depth}_cifar": Network(
            _cifar_wide(config), _KUANGLIU_PARAMETERS[depth], "kuangliu"
        )
        for depth, config in _RESNETS.items()
    },
    "densenet_40_12": Network(
        cifar_densenet(40, 12, bottleneck=False, compression=1.0), 1_019_722, "Huang 2017"
    ),
    "densenet_100_12": Network(
        cifar_densenet(100, 12, bottleneck=False, compression=1.0), 6_979_642, "Huang 2017"
    ),
    "densenet_bc_40_12": Network(cifar_densenet(40, 12), 176_122, "andreasveit"),
    "densenet_bc_100_12": Network(cifar_densenet(100, 12), 769_162, "andreasveit"),
    **{
        f"wrn_{depth}_{factor}": Network(
            WideResNetConfig(depth=depth, widen_factor=factor), count, "xternalz"
        )
        for (depth, factor), count in _WRN_PARAMETERS.items()
    },
}


def list_models() -> list[str]:
    """The names that ``create`` takes."""
    return list(NETWORKS)


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
    """
    match config:
        case ResNetConfig():
            return ResNet(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        case DenseNetConfig():
            return DenseNet(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)
        case WideResNetConfig():
            return WideResNet(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)


def create(
    name: str,
    *,
    rngs: nnx.Rngs,
    dtype: Dtype = jnp.float32,
    param_dtype: Dtype = jnp.float32,
    **overrides: object,
) -> Model:
    """A named network, newly initialised, in training mode: ``create("wrn_28_10",
    rngs=nnx.Rngs(0))``.

    Args:
        name: one of ``list_models()`` or a family alias.
        rngs: as in ``build``.
        dtype: as in ``build``.
        param_dtype: as in ``build``.
        overrides: fields of the network's config, such as ``num_classes=100`` or ``dropout=0.3``.

    Returns:
        A module that takes pictures (N, H, W, 3) to logits (N, num_classes).

    Raises:
        ValueError: unknown name or option, or an invalid value; near misses are suggested.
    """
    config = get_config(name, **overrides)
    return build(config, rngs=rngs, dtype=dtype, param_dtype=param_dtype)


def count_parameters(model: nnx.Module) -> int:
    """Trainable parameters (``nnx.Param``); running statistics are not counted."""
    return sum(leaf.size for leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)).leaves)
