"""What mutants are shown on: tiny networks, and quick forms of the checks that stand apart."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import Any

from parity.budget import DType
from parity.cases import Case, upstream_cases
from parity.checks import check_pair
from parity.comparison import MODES, NETWORK_CHECKS, Comparison, Mode
from parity.lockstep import check_family
from parity.pairs import make_pair
from parity.standalone.batch_norm import check_batch_norm
from parity.standalone.data_path import check_data_path
from parity.standalone.dropout import check_dropout
from parity.standalone.functions import check_functions

# Gives the comparisons for a seed.
Subject = Callable[[int], Iterable[Comparison]]

# At least 8 channels: without AVX-512, PyTorch 2.14's oneDNN writes past the end of its memory in
# the kernel's gradient of a strided 1x1 convolution of 4 (float32, channels_last).
RESNET = {"stage_sizes": (1, 1), "widths": (8, 16), "stem_width": 8, "shortcut": "projection"}
WIDE = RESNET | {"stem_width": 128, "stage_sizes": (1,), "widths": (128,)}
WIDE_ENOUGH = WIDE | {"stem_width": 64, "widths": (64,)}  # for Winograd's algorithm
BOTTLENECK = RESNET | {"block": "bottleneck", "stem_width": 8}
PREACT = RESNET | {"shortcut_input": "activated"}
DENSENET = {"block_sizes": (2, 1), "growth_rate": 4, "stem_width": 6}
HEIGHT, WIDTH = 8, 12

# Title, the named network that it starts from, what differs, and the batch: N, H, W.
_NETWORKS: tuple[tuple[str, str, dict[str, Any], tuple[int, int, int]], ...] = (
    ("resnet", "resnet20", RESNET, (2, HEIGHT, WIDTH)),
    (
        "two blocks",
        "resnet20",
        RESNET | {"stage_sizes": (2, 2), "shortcut": "zero_pad_end"},
        (2, HEIGHT, WIDTH),
    ),
    ("resnet with biases", "resnet20", RESNET | {"conv_bias": True}, (2, HEIGHT, WIDTH)),
    ("resnet with dropout", "resnet20", RESNET | {"dropout": 0.5}, (2, HEIGHT, WIDTH)),
    ("zero_pad_end", "resnet20", RESNET | {"shortcut": "zero_pad_end"}, (2, HEIGHT, WIDTH)),
    (
        "zero_pad_both",
        "resnet20",
        RESNET | {"shortcut": "zero_pad_both", "widths": (8, 17)},
        (2, HEIGHT, WIDTH),
    ),
    ("avg_pool_pad", "resnet20", RESNET | {"shortcut": "avg_pool_pad"}, (2, HEIGHT, WIDTH)),
    ("16 channels", "resnet20", RESNET | {"stem_width": 16}, (2, HEIGHT, WIDTH)),
    ("64 channels", "resnet20", WIDE_ENOUGH, (2, 12, 12)),
    ("128 channels", "resnet20", WIDE, (4, 12, 12)),
    ("few pixels of 128 channels", "resnet20", WIDE, (2, HEIGHT, WIDTH)),
    ("bottleneck", "resnet50_cifar", BOTTLENECK, (2, HEIGHT, WIDTH)),
    ("groups", "resnet50_cifar", BOTTLENECK | {"groups": 2}, (2, HEIGHT, WIDTH)),
    ("ImageNet stem", "resnet50", BOTTLENECK, (2, 4 * HEIGHT, 4 * WIDTH)),
    ("preact", "preact_resnet110", PREACT, (2, HEIGHT, WIDTH)),
    ("preact, raw", "preact_resnet110", PREACT | {"shortcut_input": "raw"}, (2, HEIGHT, WIDTH)),
    (
        "preact, activated first",
        "preact_resnet110",
        PREACT | {"shortcut_input": "activated_first", "shortcut": "zero_pad_end"},
        (2, HEIGHT, WIDTH),
    ),
    ("wrn", "wrn_10_1", {"final_norm_momentum": 0.1}, (2, HEIGHT, WIDTH)),
    ("densenet", "densenet_bc_40_12", DENSENET, (2, HEIGHT, WIDTH)),
    (
        "densenet, odd sizes",
        "densenet_bc_40_12",
        DENSENET | {"compression": 0.55},
        (2, HEIGHT + 1, WIDTH + 1),
    ),
)

# What is seen only where nobody watches the layers: dense layers that share an array, and a row of
# equal blocks that is a loop.
_WHOLE: tuple[tuple[str, str, dict[str, Any]], ...] = (
    ("dense run", "densenet_bc_40_12", DENSENET | {"block_sizes": (3, 2)}),
    ("row of blocks", "resnet20", RESNET | {"stage_sizes": (7,), "widths": (8,)}),
)

# Optimizer and schedule of the recipe that a tiny ResNet is trained by in step with PyTorch.
_TRAININGS: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "momentum": ({"momentum": 0.9, "weight_decay": 5e-4}, {}),
    "nesterov": ({"momentum": 0.9, "nesterov": True, "weight_decay": 5e-4}, {}),
    "step schedule": ({"momentum": 0.9}, {"schedule": "step", "milestones": (1, 2)}),
    "cosine schedule": ({"momentum": 0.9}, {"schedule": "cosine"}),
    "warm-up": ({"momentum": 0.9}, {"warmup_epochs": 1.5}),
}


def network(case: Case, mode: Mode, dtype: DType, seed: int) -> Iterator[Comparison]:
    """A network layer by layer (its updates are shown by training in less time)."""
    checks = NETWORK_CHECKS.keys() - {"updates", "whole network"}
    pair = make_pair(case, seed=seed)
    for group in check_pair(pair, dtypes=[dtype], modes=[mode], checks=checks):
        yield from group


def whole(case: Case, seed: int) -> Iterator[Comparison]:
    """A network compiled as one program, in training."""
    pair = make_pair(case, seed=seed)
    for group in check_pair(pair, dtypes=["float64"], modes=["train"], checks=["whole network"]):
        yield from group


def training(optimizer: dict[str, Any], schedule: dict[str, Any], seed: int) -> list[Comparison]:
    """A tiny ResNet, trained by one optimizer and one schedule."""
    return check_family("resnet", [optimizer], [schedule], seed)


def _subjects() -> dict[str, Subject]:
    subjects: dict[str, Subject] = {}
    for title, arch, overrides, (size, height, width) in _NETWORKS:
        case = Case(title, arch, overrides, height, width, size)
        for mode in MODES:
            subjects[f"{title}, {mode}"] = partial(network, case, mode, "float64")
        if title == "resnet":
            subjects["resnet, float32"] = partial(network, case, "eval", "float32")
    for title, arch, overrides in _WHOLE:
        subjects[title] = partial(whole, Case(title, arch, overrides, HEIGHT, WIDTH, 2))
    for title, name in (
        ("kuangliu's densenet", "kuangliu, densenet"),
        ("meliketoy's wrn", "meliketoy"),
    ):
        case = dataclasses.replace(upstream_cases()[f"upstream, {name}"], name=title)
        for mode in MODES:
            subjects[f"{title}, {mode}"] = partial(network, case, mode, "float64")
    for title, (optimizer, schedule) in _TRAININGS.items():
        subjects[f"training, {title}"] = partial(training, optimizer, schedule)
    subjects["batch norm"] = partial(check_batch_norm, quick=True)
    subjects["dropout"] = partial(check_dropout, quick=True)
    subjects["functions"] = partial(check_functions, quick=True)
    subjects["data path"] = partial(check_data_path, quick=True)
    return subjects


SUBJECTS = _subjects()
