"""What the keys and shapes of a state dict tell of its network.

Some choices leave no trace there (dropout, where an option-A shortcut puts its zeros, what a
projection reads). They are never guessed: they stay unknown until a dialect's code, a named network
or the caller decides them.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from flaxnets import rules
from flaxnets.densenet import DenseNetConfig
from flaxnets.preact_resnet import PreActResNetConfig
from flaxnets.resnet import ResNetConfig
from flaxnets.wide_resnet import STAGE_WIDTHS, WideResNetConfig

Shapes = Mapping[str, tuple[int, ...]]  # this package's key (PyTorch leaf) -> PyTorch shape


Traits = tuple[dict[str, Any], dict[str, tuple[Any, ...]]]


def read_traits(family: type, shapes: Shapes) -> Traits | None:
    """What keys and shapes tell of a network of a family; None if they are not one's.

    They are necessary, not sufficient: whether a config of them has just these shapes remains to be
    checked.

    Args:
        family: class of the network's config.
        shapes: PyTorch shapes by this package's key.

    Returns:
        The config fields that they determine; and those that leave no trace, with the values they
        may have, () for any rate in [0, 1).
    """
    try:
        return _READERS[family](shapes)
    except (KeyError, IndexError, ValueError, ZeroDivisionError):
        return None


def _read_resnet(shapes: Shapes) -> Traits:
    stem = _stem(shapes["conv1.weight"])
    sizes = _stage_sizes(shapes)
    first = "layer1.0.conv"
    bottleneck = f"{first}3.weight" in shapes
    last, expansion = (3, 4) if bottleneck else (2, 1)
    widths = tuple(
        shapes[f"layer{stage}.0.conv{last}.weight"][0] // expansion
        for stage in range(1, len(sizes) + 1)
    )
    known: dict[str, Any] = {
        "block": "bottleneck" if bottleneck else "basic",
        "stage_sizes": sizes,
        "widths": widths,
        "stem": stem,
        "stem_width": shapes["conv1.weight"][0],
        "num_classes": _classes(shapes, "fc"),
        "conv_bias": "conv1.bias" in shapes,
    }
    if bottleneck:
        inner, per_group = shapes[f"{first}2.weight"][:2]
        known["groups"] = inner // per_group
        known["bottleneck_width"] = per_group / widths[0]
    shortcuts = _shortcuts(shapes)
    unknown: dict[str, tuple[Any, ...]] = {"dropout": ()}
    if shortcuts:
        stage, block = shortcuts[0]
        norm = f"layer{stage}.{block}.downsample.1.weight" in shapes
        known["shortcut"] = "projection" if norm else "projection_biased"
        if len(shortcuts) == sum(sizes) and sum(sizes) > len(sizes):
            known["project"] = "every_block"
        elif "layer1.0.downsample.0.weight" in shapes and not _changes(shapes, 1, last):
            known["project"] = "first_of_stage"
    elif any(_changes(shapes, stage, last) for stage in range(1, len(sizes) + 1)):
        unknown["shortcut"] = ("zero_pad_both", "zero_pad_end", "avg_pool_pad")
    return known, unknown


def _read_densenet(shapes: Shapes) -> Traits:
    layers = {
        (int(found[1]), int(found[2]))
        for found in (
            re.fullmatch(r"denseblock(\d+)\.denselayer(\d+)\.conv1\.weight", key) for key in shapes
        )
        if found
    }
    sizes = _sizes(layers, first=1)
    blocks = range(1, len(sizes) + 1)
    bottleneck = "denseblock1.denselayer1.conv2.weight" in shapes
    last = "conv2" if bottleneck else "conv1"
    known = {
        "block_sizes": sizes,
        "growth_rate": shapes[f"denseblock1.denselayer1.{last}.weight"][0],
        "stem": _stem(shapes["conv0.weight"]),
        "stem_width": shapes["conv0.weight"][0],
        "bottleneck": bottleneck,
        "num_classes": _classes(shapes, "classifier"),
    }
    transitions = [shapes[f"transition{block}.conv.weight"][:2] for block in blocks[:-1]]
    if transitions:
        known["compression"] = _compression(transitions)
    unknown: dict[str, tuple[Any, ...]] = {
        "dropout": (),
        "dropout_after": ("every_conv", "last_conv"),
        "concat": ("old_new", "new_old"),
        "transition_relu": (True, False),
    }
    return known, unknown


def _compression(transitions: Iterable[tuple[int, ...]]) -> float:
    """A theta with floor(theta * in) = out for every transition; the roundest there is."""
    transitions = list(transitions)
    shares = [numerator / 100 for numerator in range(100, 0, -1)]
    exact = [kept / channels for kept, channels in transitions]
    for theta in (0.5, 1.0, *shares, *exact):
        if all(int(channels * theta) == kept for kept, channels in transitions):
            return theta
    raise ValueError("the transitions have no compression in common")


def _read_wide_resnet(shapes: Shapes) -> Traits:
    sizes = _stage_sizes(shapes)
    rules.require(len(sizes) == len(STAGE_WIDTHS) and len(set(sizes)) == 1, "not a WRN")
    rules.require(shapes["conv1.weight"][0] == STAGE_WIDTHS[0], "not a WRN's stem")
    rules.require("bn1.weight" in shapes, "no final norm")
    bottleneck = "layer1.0.conv3.weight" in shapes
    known = {
        "depth": (9 if bottleneck else 6) * sizes[0] + 4,
        "widen_factor": shapes["layer1.0.conv1.weight"][0] // STAGE_WIDTHS[0],
        "block": "bottleneck" if bottleneck else "basic",
        "num_classes": _classes(shapes, "fc"),
        "conv_bias": "conv1.bias" in shapes,
    }
    unknown: dict[str, tuple[Any, ...]] = {
        "projection_input": ("activated", "raw"),
        "dropout": (),
        "dropout_before": ("conv2", "bn2"),
        "final_norm_momentum": (0.9, 0.1),
    }
    if bottleneck:
        known["stride_on"] = "conv2"
    else:
        unknown["stride_on"] = ("conv1", "conv2")
    return known, unknown


def _read_preact_resnet(shapes: Shapes) -> Traits:
    sizes = _stage_sizes(shapes)
    bottleneck = "layer1.0.conv3.weight" in shapes
    last, expansion = (3, 4) if bottleneck else (2, 1)
    rules.require(
        shapes["layer1.0.bn1.weight"][0] == shapes["conv1.weight"][0],
        "the first norm of a pre-activation block is as wide as its input",
    )
    known = {
        "block": "bottleneck" if bottleneck else "basic",
        "stage_sizes": sizes,
        "widths": tuple(
            shapes[f"layer{stage}.0.conv{last}.weight"][0] // expansion
            for stage in range(1, len(sizes) + 1)
        ),
        "stem_width": shapes["conv1.weight"][0],
        "num_classes": _classes(shapes, "fc"),
        "conv_bias": "conv1.bias" in shapes,
        "stem_norm": "bn0.weight" in shapes,
        "final_norm": "bn1.weight" in shapes,
        "shortcut": "projection" if _shortcuts(shapes) else "zero_pad_end",
    }
    return known, {
        "shortcut_input": ("activated", "raw", "activated_first"),
        "stride_on": ("conv1", "conv2"),
    }


def _stem(kernel: tuple[int, ...]) -> str:
    return {7: "imagenet", 3: "cifar"}[kernel[-1]]


def _classes(shapes: Shapes, name: str) -> int:
    return shapes[f"{name}.weight"][0] if f"{name}.weight" in shapes else 0


def _stage_sizes(shapes: Shapes) -> tuple[int, ...]:
    blocks = {
        (int(found[1]), int(found[2]))
        for found in (re.fullmatch(r"layer(\d+)\.(\d+)\.conv1\.weight", key) for key in shapes)
        if found
    }
    return _sizes(blocks, first=0)


def _sizes(numbered: set[tuple[int, int]], first: int) -> tuple[int, ...]:
    """How many there are in each group, of pairs of a group's number, from 1, and a member's.

    Gaps are allowed, so that what is missing can be listed; but not a number out of all proportion.
    """
    groups = max(group for group, _ in numbered)
    rules.require(groups <= 2 * len(numbered), "a stage's number is out of proportion")
    sizes = []
    for group in range(1, groups + 1):
        members = [member for other, member in numbered if other == group]
        size = max(members) - first + 1
        rules.require(size <= 2 * len(members), "a block's number is out of proportion")
        sizes.append(size)
    return tuple(sizes)


def _shortcuts(shapes: Shapes) -> list[tuple[int, int]]:
    """Stage and block of every shortcut with parameters."""
    found = (re.fullmatch(r"layer(\d+)\.(\d+)\.downsample\.0\.weight", key) for key in shapes)
    return sorted((int(match[1]), int(match[2])) for match in found if match)


def _changes(shapes: Shapes, stage: int, last: int) -> bool:
    """Whether the first block of a stage changes the shape."""
    if stage > 1:
        return True  # it halves the map
    into = shapes["layer1.0.conv1.weight"][1]
    return shapes[f"layer1.0.conv{last}.weight"][0] != into


_READERS: dict[type, Callable[[Shapes], Traits]] = {
    ResNetConfig: _read_resnet,
    DenseNetConfig: _read_densenet,
    PreActResNetConfig: _read_preact_resnet,
    WideResNetConfig: _read_wide_resnet,
}
