"""Dropout: the same masks in both frameworks, what the masks are like, and evaluation without them.

The two frameworks can't draw the same random numbers. Flax draws, and PyTorch's dropout layer of
the same name is given the mask; all else it does itself. A dropout in another place, or one too
many, makes the runs differ.
"""

import contextlib
import dataclasses
import re
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import flaxnets
from parity.cases import (
    TINY_BOTTLENECK,
    TINY_DENSENET,
    TINY_RESNET,
    TINY_WRN_BOTTLENECK,
    Case,
)
from parity.checks import Pair
from parity.comparison import Comparison
from parity.execution import full_precision, quick_compilation
from parity.judge import Judge
from parity.naming import torch_key, unchanged
from parity.pairs import make_pair
from parity.record import Batches, Trace, channels_first, record_torch
from parity.standalone.compiled import record_compiled
from parity.standalone.findings import Recorder, in_short
from parity.standalone.masks import check_masks

CHECK = "dropout"
# On ones dropout gives 1 / (1 - rate), which is rounded once.
SCALE_BUDGET = float(np.finfo(np.float64).eps)

Masks = dict[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Variant:
    """A way to place dropout.

    Attributes:
        arch: the named network that it starts from.
        overrides: what differs.
        layers: how many dropout layers there are.
        sources: what a dropout layer reads, by its own name: a layer of the same block, or "relu "
            and the layer.
    """

    arch: str
    overrides: Mapping[str, Any]
    layers: int
    sources: Mapping[str, str]


AFTER_EVERY_CONVOLUTION = {"dropout1": "conv1", "dropout2": "conv2", "dropout": "conv"}
QUICK = ("kellerjordan_resnet20", "wrn, before bn2")
VARIANTS = {
    "kellerjordan_resnet20": Variant(
        "kellerjordan_resnet20", TINY_RESNET, layers=2, sources={"dropout": "bn2"}
    ),
    "resnet, projection": Variant(
        *("resnet20", TINY_RESNET | {"dropout": 0.3, "shortcut": "projection"}),
        layers=2,
        sources={"dropout": "bn2"},
    ),
    "bottleneck": Variant(
        *("resnet50_cifar", TINY_BOTTLENECK | {"dropout": 0.3}),
        layers=2,
        sources={"dropout": "bn3"},
    ),
    "densenet": Variant(
        *("densenet_bc_40_12", TINY_DENSENET | {"dropout": 0.2}),
        layers=11,
        sources=AFTER_EVERY_CONVOLUTION,
    ),
    "densenet, plain": Variant(
        *("densenet_40_12", TINY_DENSENET | {"dropout": 0.2}),
        layers=6,
        sources=AFTER_EVERY_CONVOLUTION,
    ),
    "densenet, last convolution": Variant(
        *("densenet_bc_40_12", TINY_DENSENET | {"dropout": 0.2, "dropout_after": "last_conv"}),
        layers=5,
        sources={"dropout2": "conv2"},
    ),
    "wrn, before conv2": Variant(
        "wrn_10_1", {"dropout": 0.3}, layers=3, sources={"dropout": "relu bn2"}
    ),
    "wrn, before bn2": Variant(
        *("wrn_10_1", {"dropout": 0.3, "dropout_before": "bn2"}),
        layers=3,
        sources={"dropout": "conv1"},
    ),
    "wrn, bottleneck": Variant(
        *("wrn_10_1", TINY_WRN_BOTTLENECK | {"dropout": 0.3}),
        layers=3,
        sources={"dropout": "relu bn3"},
    ),
    "meliketoy_wrn_16_8": Variant(
        *("meliketoy_wrn_16_8", {"depth": 10, "widen_factor": 1}),
        layers=3,
        sources={"dropout": "conv1"},
    ),
    "weiaicunzai_wrn_40_10": Variant(
        *("weiaicunzai_wrn_40_10", {"depth": 10, "widen_factor": 1}),
        layers=3,
        sources={"dropout": "relu bn2"},
    ),
}
# Variants whose masks are looked at: the rates differ.
DRAWN = ("wrn, before conv2", "densenet")


def check_dropout(seed: int, quick: bool) -> Iterator[Comparison]:
    """Compare networks with dropout, and look at what they draw.

    Args:
        seed: of weights, pictures and masks.
        quick: fewer networks.
    """
    for name in QUICK if quick else VARIANTS:
        yield from compare_variant(name, seed)
    for name in DRAWN[: 1 if quick else None]:
        variant = VARIANTS[name]
        config = flaxnets.get_config(variant.arch, **variant.overrides)
        yield from check_masks(Recorder(CHECK, f"{name}: masks", "float32", "train"), config, seed)


def compare_variant(name: str, seed: int) -> Iterator[Comparison]:
    """Compare one network in float64, in training mode with equal masks and in evaluation mode."""
    variant = VARIANTS[name]
    pair = make_pair(Case(name, variant.arch, variant.overrides, 8, 12), seed=seed)
    batches = Batches(pair.batches.images[:1], pair.batches.labels[:1])
    with full_precision("float64"), quick_compilation():
        model: Any = flaxnets.load_torch(
            pair.torch.state_dict(),
            variant.arch,
            rngs=nnx.Rngs(seed),
            dtype="float64",
            param_dtype="float64",
            **variant.overrides,
        )
        run = record_compiled(model, batches, dtype="float64", training=True)
        kept = {name: draw(layer, run.layers[name]) for name, layer in dropouts(model, run)}
    recorder = Recorder(CHECK, name, "float64", "train")
    yield from places(recorder, variant, run, kept)
    yield scaling(recorder, model.config.dropout, kept)
    masks = {name: value != 0 for name, value in kept.items()}
    with given_masks(pair.torch, masks):
        oracle = record_torch(pair.torch, batches, training=True)
    yield from in_short(CHECK, Judge(name, "float64", "train").traces(oracle, run))
    yield from evaluation(pair, model, batches)


def dropouts(model: nnx.Module, run: Trace) -> list[tuple[str, nnx.Dropout]]:
    """The dropout layers that a run has met, by PyTorch's name."""
    layers = [
        (torch_key(path, unchanged), module)
        for path, module in nnx.iter_modules(model)
        if isinstance(module, nnx.Dropout)
    ]
    return [(name, layer) for name, layer in layers if name in run.layers]


def draw(layer: nnx.Dropout, output: np.ndarray) -> np.ndarray:
    """What the layer makes of ones the next time that it draws; its stream is left as it is."""
    return np.asarray(nnx.clone(layer)(jnp.ones(output.shape, output.dtype)))


@contextlib.contextmanager
def given_masks(module: torch.nn.Module, masks: Masks) -> Iterator[None]:
    """Dropout layers of these names drop what the masks tell, whatever their mode.

    A mask of another shape than the layer's input is not used.

    Args:
        module: PyTorch's network.
        masks: (N, H, W, C) by name, True where the input is kept.
    """

    def drop(mask: torch.Tensor, scale: float, _: Any, args: Any, __: Any) -> torch.Tensor | None:
        (x,) = args
        return x * mask.to(x.dtype) * scale if x.shape == mask.shape else None

    hooks = [
        child.register_forward_hook(
            # The rate is read now: it is 0 while a run is recorded.
            partial(drop, channels_first(masks[name], torch.ones(())), 1 / (1 - child.p))
        )
        for name, child in module.named_modules()
        if isinstance(child, torch.nn.Dropout) and name in masks
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def places(recorder: Recorder, variant: Variant, run: Trace, kept: Masks) -> Iterator[Comparison]:
    """That there are as many dropout layers as there should be, and what each of them reads."""
    yield recorder.fact(
        "number of dropout layers",
        len(kept) == variant.layers,
        f"{len(kept)}, {variant.layers} expected: {', '.join(kept) or 'none'}",
    )
    for name, factors in kept.items():
        block, _, own = name.rpartition(".")
        source = variant.sources.get(own, "")
        relu, layer = re.fullmatch(r"(relu )?(.*)", source).groups()  # type: ignore[union-attr]
        x = run.layers.get(f"{block}.{layer}")
        if x is None or x.shape != factors.shape:
            yield recorder.fact(name, False, f"there should be {source or 'no dropout'} before it")
            continue
        expected = (np.maximum(x, 0) if relu else x) * factors
        yield recorder.array(name, run.layers[name], expected, note=f"reads {source}")


def scaling(recorder: Recorder, rate: float, kept: Masks) -> Comparison:
    """That what is kept is divided by 1 - rate."""
    distances = (np.abs(v[v != 0] * (1 - rate) - 1).max(initial=0.0) for v in kept.values())
    off = float(max(distances, default=0.0))
    note = f"the largest difference of (1 - {rate:g}) times what is kept from 1"
    return recorder.number("scaling", off, SCALE_BUDGET, note)


def evaluation(pair: Pair, model: Any, batches: Batches) -> Iterator[Comparison]:
    """That evaluation drops nothing and draws nothing."""
    recorder = Recorder(CHECK, pair.name, "float64", "eval")
    images = batches.images[0]
    pair.torch.eval()
    with torch.no_grad():
        like = next(pair.torch.parameters())
        expected = pair.torch(channels_first(images, like)).numpy()
    model.eval()
    graphdef, state = nnx.split(model)

    @jax.jit
    def evaluate(state: Any, images: jax.Array) -> Any:
        network = nnx.merge(graphdef, state, copy=True)
        return network(images), nnx.state(network, nnx.RngCount)

    with full_precision("float64"), quick_compilation():
        logits, counts = evaluate(state, jnp.asarray(images))
    yield recorder.array("logits", np.asarray(logits), expected)
    drawn = sum(int(count) for count in jax.tree.leaves(counts))
    yield recorder.fact("draws", drawn == 0, f"{drawn} masks are drawn")
