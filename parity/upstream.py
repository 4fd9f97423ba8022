"""Networks of published code bases, under their own names, beside Flax's with the same weights.

The bridge carries every weight from upstream's key to ours; here each of upstream's layers is
compared with the Flax layer that the bridge took its weights to.
"""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import torchvision
from torch import nn

import flaxnets
import torchref
from flaxnets import DenseNetConfig, PreActResNetConfig, ResNetConfig, WideResNetConfig
from flaxnets.dialects import OWN
from flaxnets.layout import layout
from flaxnets.registry import Config
from flaxnets.torch_bridge import dialect_for
from parity.naming import Rename
from parity.weights import BATCHES_TRACKED
from torchref.upstream import densenet, preact_resnet, resnet, wide_resnet

KELLERJORDAN_OPTIONS: Mapping[str, Any] = {
    "zero_pad_end": "A",
    "projection_biased": "B",
    "avg_pool_pad": "C",
}


# Their modules return log_softmax of the logits.
LOG_PROBABILITIES = {"bamos"}


class NoUpstreamError(ValueError):
    """No module of that code base is at hand, or none with layers."""


def upstream_module(dialect: str, config: Config) -> nn.Module:
    """The PyTorch module of a code base for a network.

    Args:
        dialect: the code base's name (``flaxnets.dialects``).
        config: a network that it can build.

    Raises:
        NoUpstreamError: there is no module of that name for the family.
    """
    if dialect == OWN:
        return _twin(config)
    makers: Mapping[str, Callable[[Any], nn.Module]] = _MAKERS[type(config)]
    if dialect not in makers:
        family = type(config).__name__.removesuffix("Config")
        raise NoUpstreamError(
            f"no PyTorch module of {dialect}'s {family} with layers of its own is at hand; "
            f"there are those of {', '.join(makers)}"
        )
    return makers[dialect](config)


def _twin(config: Config) -> nn.Module:
    """This package's own PyTorch module of any config."""
    relative = next(
        name
        for name in flaxnets.list_models()
        if isinstance(flaxnets.get_config(name), type(config))
    )
    return torchref.create(relative, **dataclasses.asdict(config))


def layer_names(config: Config, dialect: str) -> Rename:
    """What a code base calls the layers and variables of a Flax network.

    Only layers with parameters have a counterpart there; what they are gathered in is upstream's.
    """
    known = dialect_for(config, dialect)
    names = {entry.key: known.to_upstream(entry.key) for entry in layout(config)}
    layers = {ours.rpartition(".")[0]: theirs.rpartition(".")[0] for ours, theirs in names.items()}
    return lambda name: names.get(name) or layers.get(name, name)


def layers_are_gathered_otherwise(config: Config, dialect: str) -> bool:
    """Whether stages and blocks may be other modules there than here: names differ."""
    return bool(dialect_for(config, dialect).renames)


def load_file(module: nn.Module, arrays: Mapping[str, np.ndarray]) -> None:
    """Give a module the tensors of a file, in place.

    Files from before PyTorch 0.4 count no batches, and torchvision's DenseNet files have its names
    of 2017.

    Raises:
        ValueError: the module has other keys than the file; all are listed.
    """
    tensors = {
        _NAMES_OF_2017.sub(r"\1\2", key): torch.from_numpy(np.array(value, _held(value.dtype)))
        for key, value in arrays.items()
    }
    missing, unexpected = module.load_state_dict(tensors, strict=False)
    missing = [key for key in missing if not key.endswith(BATCHES_TRACKED)]
    if missing or unexpected:
        listed = [f"{key} missing" for key in missing] + [f"{key} unexpected" for key in unexpected]
        raise ValueError("the file's keys are not the module's:\n  " + "\n  ".join(listed))


_NAMES_OF_2017 = re.compile(r"(denselayer\d+\.(?:norm|conv))\.(\d)")


def _held(dtype: np.dtype) -> np.dtype:
    """A dtype that both libraries have and that holds the values."""
    return np.dtype(np.float64 if dtype.kind not in "iu" else np.int64)


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """Log-probabilities over the last axis."""
    shifted = logits - logits.max(axis=-1, keepdims=True)
    return shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))


def remove_dropout(module: nn.Module) -> None:
    """Put an identity in the place of every dropout layer, in place."""
    for parent in list(module.modules()):
        for name, child in parent.named_children():
            if isinstance(child, nn.Dropout):
                setattr(parent, name, nn.Identity())


@dataclasses.dataclass(frozen=True)
class Example:
    """A tiny network of one code base.

    Attributes:
        dialect: the name of its names.
        config: of the network.
        options: what the keys don't tell ``flaxnets.load_torch``.
    """

    dialect: str
    config: Config
    options: Mapping[str, Any] = dataclasses.field(default_factory=dict)


def _resnet(**options: Any) -> ResNetConfig:
    defaults: Any = {"stage_sizes": (1, 2), "widths": (4, 8), "stem_width": 4, "num_classes": 3}
    return ResNetConfig(**(defaults | {"stem": "cifar"} | options))


def _preact(**options: Any) -> PreActResNetConfig:
    defaults: Any = {"stage_sizes": (1, 2), "widths": (4, 8), "stem_width": 4, "num_classes": 3}
    return PreActResNetConfig(**(defaults | {"final_norm": False} | options))


def _densenet(**options: Any) -> DenseNetConfig:
    defaults: Any = {"block_sizes": (1, 2), "growth_rate": 4, "stem_width": 8, "num_classes": 3}
    return DenseNetConfig(**(defaults | options))


def _wrn(widen_factor: int = 2, **options: Any) -> WideResNetConfig:
    return WideResNetConfig(depth=10, widen_factor=widen_factor, num_classes=3, **options)


_FOUR_STAGES: Any = {"stage_sizes": (1, 1, 1, 1), "widths": (64, 128, 256, 512), "stem_width": 64}
_NO_DROPOUT: Any = {"dropout": 0.0}

EXAMPLES: Mapping[str, Example] = {
    "torchvision, basic": Example("torchvision", _resnet(**_FOUR_STAGES, stem="imagenet")),
    "torchvision, grouped": Example(
        "torchvision",
        _resnet(
            **_FOUR_STAGES, stem="imagenet", block="bottleneck", groups=2, bottleneck_width=0.25
        ),
    ),
    "timm": Example("timm", _resnet(**_FOUR_STAGES, stem="imagenet")),
    "chenyaofo": Example(
        "chenyaofo", _resnet(stage_sizes=(1, 1, 1), widths=(16, 32, 64), stem_width=16)
    ),
    "pytorch_book": Example("pytorch_book", _resnet(stem="imagenet")),
    "pytorch_book_fc": Example("pytorch_book_fc", _resnet(stem="imagenet")),
    "pytorch_book_fc, chapter 4 of v1.0": Example(
        "pytorch_book_fc", _resnet(stem="imagenet", project="first_of_stage")
    ),
    "pytorch_book_fc, chapter 6 of v1.0": Example(
        "pytorch_book_fc",
        _resnet(stem="imagenet", stage_sizes=(1, 2, 1), widths=(6, 8, 8), num_classes=2),
    ),
    "kellerjordan, A": Example(
        "kellerjordan",
        _resnet(shortcut="zero_pad_end", conv_bias=True),
        {"shortcut": "zero_pad_end"},
    ),
    "kellerjordan, B": Example(
        "kellerjordan", _resnet(shortcut="projection_biased", conv_bias=True)
    ),
    "kellerjordan, C": Example(
        "kellerjordan",
        _resnet(shortcut="avg_pool_pad", conv_bias=True),
        {"shortcut": "avg_pool_pad"},
    ),
    "akamaster, A": Example(
        "akamaster", _resnet(shortcut="zero_pad_both"), {"dialect": "akamaster"}
    ),
    "akamaster, B": Example("akamaster", _resnet()),
    "kuangliu, resnet": Example("kuangliu", _resnet()),
    "kuangliu, resnet with bottlenecks": Example("kuangliu", _resnet(block="bottleneck")),
    "weiaicunzai, resnet": Example("weiaicunzai", _resnet()),
    "weiaicunzai, resnet with bottlenecks": Example("weiaicunzai", _resnet(block="bottleneck")),
    "kuangliu, preact": Example("kuangliu", _preact()),
    "kuangliu, preact with bottlenecks": Example(
        "kuangliu", _preact(block="bottleneck", stride_on="conv2")
    ),
    "weiaicunzai, preact": Example(
        "weiaicunzai", _preact(shortcut_input="raw", conv_bias=True, stem_norm=True)
    ),
    "weiaicunzai, preact with bottlenecks": Example(
        "weiaicunzai",
        _preact(block="bottleneck", shortcut_input="raw", conv_bias=True, stem_norm=True),
    ),
    "torchvision, densenet": Example(
        "torchvision", _densenet(stem="imagenet", dropout_after="last_conv")
    ),
    "andreasveit": Example("andreasveit", _densenet(), _NO_DROPOUT),
    "andreasveit, tutorial": Example(
        "andreasveit", _densenet(bottleneck=False, compression=1.0, stem_width=16), _NO_DROPOUT
    ),
    "bamos": Example("bamos", _densenet()),
    "kuangliu, densenet": Example("kuangliu", _densenet(concat="new_old")),
    "weiaicunzai, densenet": Example(
        "weiaicunzai", _densenet(block_sizes=(1, 1, 1, 1), transition_relu=False)
    ),
    "xternalz": Example("xternalz", _wrn(), _NO_DROPOUT),
    "xternalz, not widened": Example("xternalz", _wrn(1), _NO_DROPOUT),
    "meliketoy": Example(
        "meliketoy",
        _wrn(
            projection_input="raw",
            stride_on="conv2",
            dropout_before="bn2",
            conv_bias=True,
            final_norm_momentum=0.1,
        ),
        _NO_DROPOUT,
    ),
    "weiaicunzai, wrn": Example("weiaicunzai", _wrn(projection_input="raw", conv_bias=True)),
    "wrn_tutorial": Example(
        "wrn_tutorial", _wrn(projection_input="raw", dropout_before="bn2"), _NO_DROPOUT
    ),
}


def _stages(config: Any) -> dict[str, Any]:
    return {
        "sizes": config.stage_sizes,
        "widths": config.widths,
        "num_classes": config.num_classes,
    }


def _torchvision_resnet(config: ResNetConfig) -> nn.Module:
    kinds = {"basic": "BasicBlock", "bottleneck": "Bottleneck"}
    return torchvision.models.ResNet(
        getattr(torchvision.models.resnet, kinds[config.block]),
        list(config.stage_sizes),
        num_classes=config.num_classes,
        groups=config.groups,
        width_per_group=int(64 * config.bottleneck_width),
    )


def _pytorch_book(head: Any) -> Callable[[ResNetConfig], nn.Module]:
    return lambda config: resnet.PytorchBook(
        head,
        project_first=config.project == "first_of_stage",
        stem_width=config.stem_width,
        **_stages(config),
    )


def _torchvision_densenet(config: DenseNetConfig) -> nn.Module:
    return torchvision.models.DenseNet(
        growth_rate=config.growth_rate,
        block_config=config.block_sizes,
        num_init_features=config.stem_width,
        num_classes=config.num_classes,
    )


def _dense(config: DenseNetConfig, *more: str) -> dict[str, Any]:
    fields = ("block_sizes", "growth_rate", "num_classes", *more)
    return {field: getattr(config, field) for field in fields}


def _wide(make: Callable[..., nn.Module]) -> Callable[[WideResNetConfig], nn.Module]:
    return lambda config: make(
        config.depth, config.widen_factor, num_classes=config.num_classes, dropout=config.dropout
    )


_MAKERS: Mapping[type, Mapping[str, Callable[[Any], nn.Module]]] = {
    ResNetConfig: {
        "torchvision": _torchvision_resnet,
        "timm": _torchvision_resnet,
        "chenyaofo": lambda config: resnet.chenyaofo(**_stages(config)),
        "pytorch_book": _pytorch_book("classifier"),
        "pytorch_book_fc": _pytorch_book("fc"),
        "kellerjordan": lambda config: resnet.KellerJordan(
            KELLERJORDAN_OPTIONS[config.shortcut], dropout=config.dropout, **_stages(config)
        ),
        "akamaster": lambda config: resnet.akamaster(
            "B" if config.shortcut == "projection" else "A", **_stages(config)
        ),
        "kuangliu": lambda config: resnet.kuangliu(config.block, **_stages(config)),
        "weiaicunzai": lambda config: resnet.Weiaicunzai(config.block, **_stages(config)),
    },
    PreActResNetConfig: {
        "kuangliu": lambda config: preact_resnet.Kuangliu(config.block, **_stages(config)),
        "weiaicunzai": lambda config: preact_resnet.Weiaicunzai(config.block, **_stages(config)),
    },
    DenseNetConfig: {
        "torchvision": _torchvision_densenet,
        "torchvision_2017": _torchvision_densenet,
        "timm": _torchvision_densenet,
        "andreasveit": lambda config: densenet.andreasveit(
            reduction=config.compression,
            **_dense(config, "stem_width", "bottleneck", "dropout"),
        ),
        "bamos": lambda config: densenet.bamos(
            reduction=config.compression, **_dense(config, "bottleneck")
        ),
        "kuangliu": lambda config: densenet.kuangliu(**_dense(config)),
        "weiaicunzai": lambda config: densenet.Weiaicunzai(**_dense(config)),
    },
    WideResNetConfig: {
        "xternalz": _wide(wide_resnet.Xternalz),
        "meliketoy": _wide(wide_resnet.Meliketoy),
        "weiaicunzai": _wide(wide_resnet.Weiaicunzai),
        "wrn_tutorial": _wide(wide_resnet.Tutorial),
    },
}
