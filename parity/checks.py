"""What is compared of a pair of networks: in which dtypes and modes, and against which oracle."""

import contextlib
import copy
import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from flax import nnx

from parity.budget import DTYPES, DType, Error, float32_budget, largest, relative_error
from parity.comparison import MODES, Comparison, Judge, Mode
from parity.kinks import sides_of
from parity.naming import Rename, unchanged
from parity.record import Batches, Trace, full_precision, record_flax, record_torch

# With and without oneDNN (cuDNN on a GPU) PyTorch adds in different orders: its own rounding error
# is seen twice.
LIBRARIES = (True, False)


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
    """

    name: str
    torch: torch.nn.Module
    make_flax: Callable[[DType], nnx.Module]
    batches: Batches
    rename: Rename = unchanged
    published: int | None = None

    def flax(self, dtype: DType) -> nnx.Module:
        """The Flax module of a dtype."""
        with full_precision(dtype):
            return self.make_flax(dtype)


def check_pair(
    pair: Pair, *, dtypes: Iterable[DType] = DTYPES, modes: Iterable[Mode] = MODES
) -> Iterator[list[Comparison]]:
    """Compare a pair, one mode and dtype at a time; the numbers of parameters come first.

    Evaluation reads the first batch only: it keeps nothing for the next.
    """
    dtypes = tuple(dtypes)
    first = Batches(pair.batches.images[:1], pair.batches.labels[:1])
    yield compare_counts(pair, pair.flax(dtypes[0]))
    for mode in modes:
        training = mode == "train"
        batches = pair.batches if training else first
        oracle = record_torch(pair.torch, batches, training=training)
        for dtype in dtypes:
            # The Flax module is made anew, and dropped, each time: large networks fill the memory.
            flax = record_flax(
                pair.flax(dtype), batches, dtype=dtype, training=training, rename=pair.rename
            )
            judge = Judge(pair.name, dtype, mode)
            if dtype == "float64":
                yield judge.traces(oracle, flax)
                continue
            rounded = copy.deepcopy(pair.torch).float()
            references = []
            for enabled in LIBRARIES:
                with convolution_library(enabled):
                    references.append(record_torch(rounded, batches, training=training))
            allowed = layer_budgets(oracle, references)
            yield judge.traces(
                oracle,
                flax,
                references,
                flax_gradients=gradient_oracle(pair, oracle, flax, allowed, training),
                reference_gradients=[
                    gradient_oracle(pair, oracle, run, allowed, training) for run in references
                ],
            )


@contextlib.contextmanager
def convolution_library(enabled: bool) -> Iterator[None]:
    """PyTorch with oneDNN and cuDNN, or with its own loops, for the time of the context."""
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = enabled
        yield
    finally:
        for library, value in zip(libraries, before, strict=True):
            library.enabled = value


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
    """The float64 run on a float32 ``run``'s side of every ReLU's kink (``parity.kinks``)."""
    sides = sides_of(oracle.relus, oracle.layers, run.layers, allowed)
    if not sides:
        return oracle
    first = Batches(pair.batches.images[:1], pair.batches.labels[:1])
    return record_torch(pair.torch, first, training=training, sides=sides)


def count_parameters(model: nnx.Module) -> int:
    """Trainable parameters of a Flax module."""
    return sum(leaf.size for leaf in nnx.to_flat_state(nnx.state(model, nnx.Param)).leaves)


def compare_counts(pair: Pair, model: nnx.Module) -> list[Comparison]:
    """Both numbers of trainable parameters against the published one, or PyTorch's if none is."""
    counts = {
        "PyTorch": sum(parameter.numel() for parameter in pair.torch.parameters()),
        "Flax": count_parameters(model),
    }
    expected = counts["PyTorch"] if pair.published is None else pair.published
    source = "PyTorch" if pair.published is None else "published"
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
