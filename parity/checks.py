"""What is compared of a pair of networks: in which dtypes and modes, and against which oracle."""

import copy
import dataclasses
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TypeVar

import numpy as np
from flax import nnx
from torch import nn

from parity.budget import DTYPES, DType, Error, float32_budget, largest, relative_error
from parity.comparison import MODES, NETWORK_CHECKS, Comparison, Mode
from parity.execution import full_precision
from parity.isolated import compare_layers
from parity.judge import Judge
from parity.kinks import Side, sides_of
from parity.libraries import WAYS, computing
from parity.naming import Rename, unchanged
from parity.record import Batches, RunError, Trace, record_flax, record_torch
from parity.updates import compare_updates
from parity.whole import CHECK as WHOLE
from parity.whole import compare_whole

Name = TypeVar("Name", bound=str)

# What needs the networks to be run, side by side.
RECORDED = NETWORK_CHECKS.keys() - {"parameters", "bridge", "updates"}


def unfinished(logits: np.ndarray) -> np.ndarray:
    """The logits as they are."""
    return logits


@dataclasses.dataclass(frozen=True)
class Pair:
    """A network in both frameworks, with the same weights.

    Attributes:
        name: for reports.
        torch: the PyTorch module, in float64.
        make_flax: makes the Flax module of a dtype with the PyTorch module's weights; called where
            JAX has 64-bit types if the dtype needs them.
        batches: what both read.
        rename: dotted Flax names to PyTorch's.
        published: published number of parameters, where there is one.
        finish: what the PyTorch module does to its logits, where the Flax one gives them as they
            are.
        to_torch: a Flax module's state dict, by which its weights go back to PyTorch; None where
            there is no way back.
        leaves_only: whether the two gather their layers differently, so that only layers with
            parameters are compared.
    """

    name: str
    torch: nn.Module
    make_flax: Callable[[DType], nnx.Module]
    batches: Batches
    rename: Rename = unchanged
    published: int | None = None
    finish: Callable[[np.ndarray], np.ndarray] = unfinished
    to_torch: Callable[[nnx.Module], Mapping[str, np.ndarray]] | None = None
    leaves_only: bool = False

    def flax(self, dtype: DType) -> nnx.Module:
        """The Flax module of a dtype."""
        with full_precision(dtype):
            return self.make_flax(dtype)

    def run_torch(
        self,
        batches: Batches,
        *,
        training: bool,
        module: nn.Module | None = None,
        sides: Mapping[int, Side] | None = None,
    ) -> Trace:
        """Record the PyTorch module, or ``module`` in its place (``parity.record``)."""
        trace = record_torch(module or self.torch, batches, training=training, sides=sides)
        return trace.only_leaves() if self.leaves_only else trace

    def run_flax(
        self, model: nnx.Module, batches: Batches, *, dtype: DType, training: bool
    ) -> Trace:
        """Record a Flax module of ``flax`` likewise."""
        trace = record_flax(model, batches, dtype=dtype, training=training, rename=self.rename)
        trace = dataclasses.replace(trace, logits=self.finish(trace.logits))
        return trace.only_leaves() if self.leaves_only else trace


def check_pair(
    pair: Pair,
    *,
    dtypes: Iterable[DType] = DTYPES,
    modes: Iterable[Mode] = MODES,
    checks: Collection[str] = NETWORK_CHECKS,
) -> Iterator[list[Comparison]]:
    """Compare a pair, one mode and dtype at a time; the numbers of parameters come first.

    Evaluation reads the first batch only: it keeps nothing for the next. What could not be compared
    at all, a network that doesn't run or a layer that only one side has, is told whatever was asked
    for.

    Raises:
        ValueError: a dtype, mode or check is unknown, or there is none.
    """
    asked = known("dtype", dtypes, DTYPES)
    wanted = known("check", checks, NETWORK_CHECKS)
    for comparisons in _check_pair(pair, asked, known("mode", modes, MODES), wanted):
        yield [each for each in comparisons if each.check in wanted or each.impossible]


def known(what: str, given: Iterable[Name], choices: Iterable[Name]) -> tuple[Name, ...]:
    """``given``, checked.

    Raises:
        ValueError: it is not a collection of some of the choices.
    """
    choices, names = list(choices), tuple(given)
    unknown = [repr(name) for name in names if name not in choices]
    if unknown or not names:
        found = repr(given) if isinstance(given, str) else ", ".join(unknown) or "none"
        raise ValueError(f"{what}s are a list of one or more of {choices}, got {found}")
    return names


def _check_pair(
    pair: Pair, dtypes: tuple[DType, ...], modes: tuple[Mode, ...], checks: Collection[str]
) -> Iterator[list[Comparison]]:
    yield _compare_weights(pair, dtypes[0])
    runs = True
    for mode in modes if RECORDED.intersection(checks) else ():
        for comparisons in _compare_mode(pair, mode, dtypes, checks):
            runs &= all(np.isfinite(c.error) for c in comparisons if c.check == "layers")
            yield comparisons
    if runs and "updates" in checks and "float64" in dtypes and "train" in modes:
        judge = Judge(pair.name, "float64", "train")
        yield compare_updates(judge, pair.torch, pair.flax("float64"), pair.batches, pair.rename)


def _compare_weights(pair: Pair, dtype: DType) -> list[Comparison]:
    model = pair.flax(dtype)
    return compare_counts(pair, model) + compare_keys(pair, model, dtype)


def _compare_mode(
    pair: Pair, mode: Mode, dtypes: Iterable[DType], checks: Collection[str]
) -> Iterator[list[Comparison]]:
    batches = pair.batches
    if mode == "eval":
        batches = Batches(batches.images[:1], batches.labels[:1])
    oracle = pair.run_torch(batches, training=mode == "train")
    for dtype in dtypes:
        yield _compare_runs(pair, Judge(pair.name, dtype, mode), oracle, batches, checks)


def _compare_runs(
    pair: Pair, judge: Judge, oracle: Trace, batches: Batches, checks: Collection[str]
) -> list[Comparison]:
    """Compare a run in one dtype, and the layers by themselves.

    The Flax module is made anew, and dropped, each time: large networks fill the memory.
    """
    dtype: DType = judge.dtype  # type: ignore[assignment]
    model = pair.flax(dtype)
    rounded = copy.deepcopy(pair.torch).float() if dtype == "float32" else None
    try:
        flax = pair.run_flax(model, batches, dtype=dtype, training=judge.mode == "train")
    except RunError as error:
        calls = error.calls
        found = [judge.failure("layers", error.layer, str(error))]
    else:
        calls = flax.calls
        references: list[Trace] = []
        if rounded is None:
            found = judge.traces(oracle, flax)
        else:
            references = _reference_runs(pair, rounded, batches, training=judge.mode == "train")
            found = _compare_float32(pair, judge, oracle, flax, references)
        del flax
        if WHOLE in checks:
            found += compare_whole(
                judge, model, batches, pair.rename, pair.finish, oracle, references
            )
        del references
    if "isolated layers" in checks:
        found += compare_layers(
            judge, pair.torch, model, oracle, calls, pair.rename, rounded=rounded
        )
    return found


def _compare_float32(
    pair: Pair,
    judge: Judge,
    oracle: Trace,
    flax: Trace,
    references: list[Trace],
) -> list[Comparison]:
    training = judge.mode == "train"
    allowed = layer_budgets(oracle, references)
    return judge.traces(
        oracle,
        flax,
        references,
        flax_gradients=gradient_oracle(pair, oracle, flax, allowed, training),
        reference_gradients=[
            gradient_oracle(pair, oracle, run, allowed, training) for run in references
        ],
    )


def _reference_runs(
    pair: Pair, rounded: nn.Module, batches: Batches, *, training: bool
) -> list[Trace]:
    """The PyTorch module in float32, in each of the ways that it can compute."""
    references = []
    for way in WAYS:
        with computing(way):
            run = pair.run_torch(batches, training=training, module=rounded)
            references.append(dataclasses.replace(run, inputs={}))
    return references


def layer_budgets(oracle: Trace, references: Iterable[Trace]) -> dict[str, Error]:
    """What each layer's output may be off in float32."""
    references = list(references)
    return {
        layer: float32_budget(
            largest(relative_error(run.layers[layer], output) for run in references)
        )
        for layer, output in oracle.layers.items()
    }


def gradient_oracle(
    pair: Pair, oracle: Trace, run: Trace, allowed: Mapping[str, Error], training: bool
) -> Trace:
    """The float64 run on a float32 ``run``'s side of every ReLU's kink (``parity.kinks``).

    Of its arrays only the gradients are kept: they are all that is needed, and memory is short.
    """
    sides = sides_of(oracle.relus, oracle.layers, run.layers, allowed)
    if not sides:
        return oracle
    first = Batches(pair.batches.images[:1], pair.batches.labels[:1])
    turned = pair.run_torch(first, training=training, sides=sides)
    return dataclasses.replace(turned, layers={}, inputs={}, statistics={})


def count_parameters(model: nnx.Module) -> int:
    """Trainable parameters of a Flax module."""
    return sum(leaf.size for leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)).leaves)


def compare_counts(pair: Pair, model: nnx.Module) -> list[Comparison]:
    """Both numbers of trainable parameters against the published one, or Flax's against PyTorch's
    if none is.
    """
    counts = {"Flax": count_parameters(model)}
    expected = sum(parameter.numel() for parameter in pair.torch.parameters())
    source = "PyTorch"
    if pair.published is not None:
        counts = {"PyTorch": expected} | counts
        expected, source = pair.published, "published"
    return [
        Comparison(
            network=pair.name,
            check="parameters",
            dtype="",
            mode="",
            layer=side,
            error=abs(count - expected) / expected,
            budget=0.0,
            note=f"{count:,} ({source}: {expected:,})",
        )
        for side, count in counts.items()
    ]


def compare_keys(pair: Pair, model: nnx.Module, dtype: DType) -> list[Comparison]:
    """That the way back gives exactly PyTorch's keys, with its shapes and its values, bit for bit.

    Floating-point values are compared as the Flax module's dtype holds them.
    """
    if pair.to_torch is None:
        return []
    given = pair.to_torch(model)
    expected = {key: value.numpy(force=True) for key, value in pair.torch.state_dict().items()}
    expected = {
        key: value.astype(dtype) if np.issubdtype(value.dtype, np.floating) else value
        for key, value in expected.items()
    }
    wrong = []
    for key in dict.fromkeys([*expected, *given]):
        if key not in given:
            wrong.append(f"{key} missing")
        elif key not in expected:
            wrong.append(f"{key} unexpected")
        elif given[key].dtype != expected[key].dtype:
            wrong.append(f"{key} is {given[key].dtype}")
        elif not np.array_equal(given[key], expected[key]):
            wrong.append(f"{key} differs")
    note = f"{len(expected)} keys, each used once"
    return [
        Comparison(
            network=pair.name,
            check="bridge",
            dtype="",
            mode="",
            layer=wrong[0].partition(" ")[0] if wrong else "",
            error=float(len(wrong)),
            budget=0.0,
            note="; ".join(wrong[:5]) if wrong else note,
        )
    ]
