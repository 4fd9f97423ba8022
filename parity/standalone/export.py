"""The networks as they are used: compiled whole, in bfloat16, and lowered for other devices.

The comparison of whole networks compiles layer by layer, in float64 and float32, for the device at
hand.
"""

import copy
import dataclasses
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax.numpy as jnp
import numpy as np
import torch

import flaxnets
from parity.budget import largest, relative_error, rounded_budget
from parity.cases import Case, find_case
from parity.checks import Pair, check_pair, gradient_oracle
from parity.comparison import MODES, Comparison, Mode
from parity.execution import quick_compilation
from parity.judge import Judge
from parity.libraries import WAYS, computing
from parity.lockstep import FAMILIES
from parity.pairs import make_pair
from parity.record import Trace, record_torch
from parity.standalone.compiled import COMPILED_CHECKS, CompiledPair, record_compiled
from parity.standalone.findings import Recorder, in_short
from parity.standalone.lowering import check_lowering

CHECK = "export"
QUICK = "preact"
# The tiny networks of all families, and forms of convolution that they don't have.
LOWERED = (
    *(Case(family, arch, overrides, 8, 12) for family, (arch, overrides) in FAMILIES.items()),
    *map(find_case, ("bottleneck, groups", "bottleneck, ImageNet stem", "wrn, dropout")),
)


def check_export(seed: int, quick: bool) -> Iterator[Comparison]:
    """Check a tiny network of every family.

    Args:
        seed: of weights and pictures.
        quick: one of them, and little of it in evaluation mode, but for the lowering.
    """
    for family in (QUICK,) if quick else FAMILIES:
        arch, overrides = FAMILIES[family]
        pair = make_pair(Case(family, arch, overrides, 8, 12, batch=8), seed=seed)
        yield from compare_compiled(pair)
        for mode in ("train",) if quick else MODES:
            yield from compare_eager(pair, mode)
            yield from compare_bfloat16(pair, arch, overrides, mode)
    for case in LOWERED[: len(FAMILIES) if quick else None]:
        yield from check_lowering(CHECK, case)


def compare_compiled(pair: Pair) -> Iterator[Comparison]:
    """Compare the compiled network with PyTorch, in float32."""
    name = f"{pair.name}, compiled"
    renamed = CompiledPair(**vars(dataclasses.replace(pair, name=name)))
    for group in check_pair(renamed, dtypes=["float32"], checks=COMPILED_CHECKS):
        yield from in_short(CHECK, group)


def compare_eager(pair: Pair, mode: Mode) -> Iterator[Comparison]:
    """Compare the compiled network with itself, run operation by operation, in float64."""
    model, training = pair.flax("float64"), mode == "train"
    run = partial(record_compiled, model, pair.batches, dtype="float64", training=training)
    with quick_compilation():
        eager = run(compiled=False)
    judge = Judge(f"{pair.name}, compiled against eager", "float64", mode)
    yield from in_short(CHECK, judge.traces(eager, run()))


def compare_bfloat16(
    pair: Pair, arch: str, overrides: Mapping[str, Any], mode: Mode
) -> Iterator[Comparison]:
    """Compare a network that computes in bfloat16 with PyTorch's under ``torch.autocast``.

    Parameters are float32 on both sides.

    Args:
        pair: the networks.
        arch: the named network that it is made from.
        overrides: what differs.
        mode: of both.
    """
    training = mode == "train"
    model = flaxnets.load_torch(pair.torch.state_dict(), arch, dtype=jnp.bfloat16, **overrides)
    run = record_compiled(model, pair.batches, dtype="float32", training=training)
    oracle = record_torch(pair.torch, pair.batches, training=training)
    rounded = copy.deepcopy(pair.torch).float()
    references = []
    for way in WAYS:
        with computing(way), torch.autocast("cpu", torch.bfloat16):
            references.append(record_torch(rounded, pair.batches, training=training))
    allowed = {
        layer: rounded_budget(
            "bfloat16", largest(relative_error(each.layers[layer], output) for each in references)
        )
        for layer, output in oracle.layers.items()
    }
    on_its_side = partial(gradient_oracle, pair, oracle, allowed=allowed, training=training)
    name = f"{pair.name}, bfloat16"
    yield dtypes(Recorder(CHECK, name, "bfloat16", mode), run)
    found = Judge(name, "bfloat16", mode).traces(
        oracle,
        run,
        references,
        flax_gradients=on_its_side(run),
        reference_gradients=[on_its_side(each) for each in references],
    )
    yield from in_short(CHECK, found)


def dtypes(recorder: Recorder, run: Trace) -> Comparison:
    """That layers compute in bfloat16, and what is kept, or added up over steps, in float32."""
    arrays: dict[str, Iterable[np.ndarray]] = {
        "layers": run.layers.values(),
        "logits": (run.logits,),
        "loss": (run.loss,),
        "gradients": run.parameter_gradients.values(),
        "means": (value for key, value in run.statistics.items() if key.endswith("mean")),
        "variances": (value for key, value in run.statistics.items() if key.endswith("var")),
    }
    found = {kind: sorted({str(each.dtype) for each in values}) for kind, values in arrays.items()}
    expected = {kind: ["bfloat16" if kind in ("layers", "logits") else "float32"] for kind in found}
    note = ", ".join(f"{kind} {' and '.join(names)}" for kind, names in found.items())
    return recorder.fact("dtypes", found == expected, note)
