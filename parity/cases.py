"""What is compared, on what inputs: every named network, and the options that no name reaches."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import flaxnets
from flaxnets import rules
from flaxnets.registry import Config
from parity.upstream import EXAMPLES

TINY_RESNET = {"stage_sizes": (1, 2), "widths": (8, 16), "stem_width": 8}
TINY_BOTTLENECK = {"block": "bottleneck", "stage_sizes": (2, 1), "widths": (8, 16), "stem_width": 8}
TINY_WRN_BOTTLENECK = {"block": "bottleneck", "depth": 13, "stride_on": "conv2"}
TINY_DENSENET = {"block_sizes": (3, 2), "growth_rate": 6, "stem_width": 12}

# Name, network it starts from, what differs.
OPTIONS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    *(
        (f"resnet, {kind}", "resnet20", TINY_RESNET | {"shortcut": kind})
        for kind in (
            *("zero_pad_end", "zero_pad_both", "avg_pool_pad"),
            *("projection", "projection_biased"),
        )
    ),
    *(
        (
            f"resnet, {kind} {project}",
            "resnet20",
            TINY_RESNET | {"shortcut": kind, "project": project},
        )
        for kind in ("projection", "projection_biased", "zero_pad_both")
        for project in ("first_of_stage", "every_block")
    ),
    ("resnet, convolution biases", "resnet20", TINY_RESNET | {"conv_bias": True}),
    ("resnet, dropout", "resnet20", TINY_RESNET | {"dropout": 0.5, "shortcut": "projection"}),
    ("resnet, no dropout", "kellerjordan_resnet20", TINY_RESNET | {"dropout": 0.0}),
    ("resnet, odd widths", "resnet20", TINY_RESNET | {"widths": (8, 19)}),
    ("resnet, 100 classes", "resnet20", TINY_RESNET | {"num_classes": 100}),
    ("bottleneck, projection", "resnet50_cifar", TINY_BOTTLENECK),
    ("bottleneck, zero_pad_end", "resnet50_cifar", TINY_BOTTLENECK | {"shortcut": "zero_pad_end"}),
    ("bottleneck, wide", "resnet50_cifar", TINY_BOTTLENECK | {"bottleneck_width": 2.0}),
    (
        "bottleneck, dropout and biases",
        "resnet50_cifar",
        TINY_BOTTLENECK | {"dropout": 0.3, "conv_bias": True},
    ),
    ("bottleneck, groups", "resnet50_cifar", TINY_BOTTLENECK | {"groups": 4}),
    (
        "bottleneck, narrow groups",
        "resnet50_cifar",
        TINY_BOTTLENECK | {"groups": 3, "bottleneck_width": 0.25, "project": "every_block"},
    ),
    (
        "resnet, pytorch-book's chapter 6",
        "pytorch_book_resnet34_ch6_v1",
        TINY_RESNET | {"stage_sizes": (1, 1, 2), "widths": (16, 24, 24)},
    ),
    ("bottleneck, ImageNet stem", "resnet50", TINY_BOTTLENECK | {"project": "every_block"}),
    ("densenet, plain", "densenet_40_12", TINY_DENSENET),
    ("densenet, plain, compression 0.7", "densenet_40_12", TINY_DENSENET | {"compression": 0.7}),
    ("densenet, bottleneck", "densenet_bc_40_12", TINY_DENSENET | {"compression": 1.0}),
    ("densenet, compression 0.7", "densenet_bc_40_12", TINY_DENSENET | {"compression": 0.7}),
    ("densenet, dropout", "densenet_bc_40_12", TINY_DENSENET | {"dropout": 0.2}),
    ("densenet, plain, dropout", "densenet_40_12", TINY_DENSENET | {"dropout": 0.2}),
    (
        "densenet, dropout after the last convolution",
        "densenet_bc_40_12",
        TINY_DENSENET | {"dropout": 0.2, "dropout_after": "last_conv"},
    ),
    ("densenet, new maps first", "densenet_bc_40_12", TINY_DENSENET | {"concat": "new_old"}),
    (
        "densenet, plain, new maps first",
        "densenet_40_12",
        TINY_DENSENET | {"concat": "new_old", "block_sizes": (2, 2, 1)},
    ),
    (
        "densenet, transitions without ReLU",
        "densenet_bc_40_12",
        TINY_DENSENET | {"transition_relu": False},
    ),
    ("densenet, 16-channel stem", "densenet_bc_40_12", TINY_DENSENET | {"stem_width": 16}),
    ("densenet, ImageNet stem", "densenet_bc_40_12", TINY_DENSENET | {"stem": "imagenet"}),
    ("wrn, raw projection", "wrn_10_1", {"projection_input": "raw", "widen_factor": 2}),
    ("wrn, dropout", "wrn_10_1", {"dropout": 0.3}),
    ("wrn, early dropout", "wrn_10_1", {"dropout": 0.3, "dropout_before": "bn2"}),
    ("wrn, bottleneck", "wrn_10_1", TINY_WRN_BOTTLENECK | {"widen_factor": 2}),
    (
        "wrn, bottleneck, raw projection",
        "wrn_10_1",
        TINY_WRN_BOTTLENECK | {"projection_input": "raw"},
    ),
    ("wrn, late stride", "wrn_10_1", {"stride_on": "conv2"}),
    ("wrn, convolution biases", "wrn_10_1", {"conv_bias": True, "projection_input": "raw"}),
    ("wrn, forgetful last norm", "wrn_10_1", {"final_norm_momentum": 0.1}),
    ("wrn, meliketoy's", "meliketoy_wrn_16_8", {"depth": 10, "widen_factor": 2}),
    *(
        (f"preact {block}, {reads} {shortcut}", "preact_resnet110", shape | options)
        for block, shape in (("basic", TINY_RESNET), ("bottleneck", TINY_BOTTLENECK))
        for reads in ("raw", "activated", "activated_first")
        for shortcut in ("projection", "zero_pad_end")
        for options in ({"shortcut": shortcut, "shortcut_input": reads},)
    ),
    ("preact basic, late stride", "preact_resnet110", TINY_RESNET | {"stride_on": "conv2"}),
    (
        "preact bottleneck, late stride",
        "preact_resnet110",
        TINY_BOTTLENECK | {"stride_on": "conv2", "shortcut": "projection"},
    ),
    (
        "preact basic, weiaicunzai's",
        "weiaicunzai_preact_resnet18_cifar",
        TINY_RESNET | {"num_classes": 10},
    ),
    (
        "preact bottleneck, weiaicunzai's",
        "weiaicunzai_preact_resnet50_cifar",
        TINY_BOTTLENECK | {"num_classes": 10},
    ),
    ("preact bottleneck, kuangliu's", "preact_resnet50_cifar", TINY_BOTTLENECK),
    (
        "preact, norms after stem and last block",
        "preact_resnet110",
        TINY_RESNET | {"stem_norm": True},
    ),
    ("wrn, 64x64", "wrn_10_1", {"widen_factor": 2}),
    ("wrn, many pictures", "wrn_10_1", {"widen_factor": 8}),
)


@dataclasses.dataclass(frozen=True)
class Case:
    """One network to compare.

    Attributes:
        name: what reports call it.
        arch: the named network that it is, or starts from.
        overrides: options that differ from that network's.
        height: of the pictures; not the width, so that the two can't be swapped unnoticed.
        width: of the pictures.
        batch: pictures in a batch.
        example: key of ``parity.upstream.EXAMPLES``, which then stands in the place of ``arch``.
        weights: a checkpoint file, whose weights then stand in the place of random ones; ``arch``
            may then be "", and height 0, if they are to be found out from it.
        dialect: the code base that the file is from; None to find out.
    """

    name: str
    arch: str
    overrides: Mapping[str, Any]
    height: int
    width: int
    batch: int = 2
    example: str = ""
    weights: Path | None = None
    dialect: str | None = None


def named_cases() -> dict[str, Case]:
    """Every named network, by name."""
    return {name: _case(name, name, {}) for name in flaxnets.list_models()}


def option_cases() -> dict[str, Case]:
    """Small networks for the options that no named network has, or has only at great size."""
    cases = {name: _case(name, arch, options) for name, arch, options in OPTIONS}
    cases["wrn, 64x64"] = dataclasses.replace(cases["wrn, 64x64"], height=64, width=64)
    # Wide layers over many pictures: on CPUs their kernels' gradients take a form of their own.
    cases["wrn, many pictures"] = dataclasses.replace(
        cases["wrn, many pictures"], height=16, width=24, batch=12
    )
    return cases


def upstream_cases() -> dict[str, Case]:
    """A tiny network of every code base whose names are known."""
    cases = {}
    for name, example in EXAMPLES.items():
        height, width = picture_size(example.config)
        title = f"upstream, {name}"
        cases[title] = Case(title, "", {}, height, width, example=name)
    return cases


def all_cases() -> dict[str, Case]:
    """Everything that is compared, by name."""
    return named_cases() | option_cases() | upstream_cases()


def find_case(name: str) -> Case:
    """The case of that name, or of a family's alias.

    Raises:
        ValueError: there is none; near misses are suggested.
    """
    cases = all_cases()
    if name in cases:
        return cases[name]
    try:
        return cases[flaxnets.canonical_name(name)]
    except ValueError:
        near = rules.nearest(name, cases)
        hint = f"did you mean {near}?" if near else "--list names them all"
        raise ValueError(f"there is no network named {name!r}; {hint}") from None


def _case(name: str, arch: str, overrides: Mapping[str, Any]) -> Case:
    config = flaxnets.get_config(arch, **overrides)
    height, width = picture_size(config)
    return Case(name, arch, overrides, height, width)


def picture_size(config: Config) -> tuple[int, int]:
    """Smaller than the published size where that would take long.

    The last feature map still has several pixels: the batch statistics of two or three values are
    ill-conditioned, and the error of a correct program without bound.
    """
    if isinstance(config, flaxnets.WideResNetConfig):
        sizes = {factor: (24, 32) for factor in (1, 2)} | {factor: (12, 16) for factor in (3, 4)}
        return sizes.get(config.widen_factor, (8, 12))
    if isinstance(config, flaxnets.DenseNetConfig):
        height, width = (12, 16) if len(config.block_sizes) < 4 else (16, 24)
        return (4 * height, 4 * width) if config.stem == "imagenet" else (height, width)
    if isinstance(config, flaxnets.ResNetConfig) and config.stem == "imagenet":
        return 48, 64
    thin = max(config.widths) <= 64 and sum(config.stage_sizes) <= 54
    return (24, 32) if thin else (12, 16)
