"""What is measured: the kinds of work, and one side's task in them."""

import dataclasses
import json
from typing import Any, Self

DTYPES = ("float32", "tf32", "bfloat16")

_TORCH = ("torch-eager", "torch-channels-last", "torch-compile")
_NETWORK = ("ours", "flax", *_TORCH)


@dataclasses.dataclass(frozen=True)
class Work:
    """A kind of work.

    Attributes:
        help: what is measured, for the command line.
        unit: what one measured duration is of.
        sides: who can do it, in the order in which they take turns.
        variants: forms of it that are measured one after the other.
        fresh: whether every run has a process of its own, because the start is what is measured.
        passes: how many times as much arithmetic a picture takes as one forward pass.
        by_memory: whether sides are compared by their peak memory, not by their time.
        runs: how many, unless the user says.
    """

    help: str
    unit: str
    sides: tuple[str, ...]
    variants: tuple[str, ...] = ("",)
    fresh: bool = False
    passes: int = 0
    by_memory: bool = False
    runs: int = 10


WORKS = {
    "train-step": Work(
        "forward, backward and SGD on pictures on the device", "step", _NETWORK, passes=3
    ),
    "inference": Work("the forward pass in evaluation mode", "batch", _NETWORK, passes=1),
    "convolutions": Work(
        "every convolution of a training step by itself: forward and both gradients",
        "pass",
        _NETWORK[:-1],
        passes=1,
        runs=3,
    ),
    "input": Work(
        "indexing, cropping, flipping and normalising pictures",
        "batch",
        ("ours", "torch-loader-0", "torch-loader-2"),
    ),
    "compile": Work(
        "from the start of the process to the end of the first training step",
        "start",
        _NETWORK,
        variants=("cold", "warm"),
        fresh=True,
        runs=3,
    ),
    "memory": Work(
        "peak memory of a training step",
        "step",
        _NETWORK,
        fresh=True,
        passes=3,
        by_memory=True,
        runs=3,
    ),
    "load": Work(
        "a .pth file into a network, and the import of the package",
        "start",
        ("ours", "torch-eager"),
        variants=("file", "import"),
        fresh=True,
        runs=5,
    ),
    "epoch": Work(
        "an epoch as users run it: data, augmentation, steps, evaluation",
        "epoch",
        ("ours", *_TORCH),
        passes=3,
        runs=3,
    ),
    "roofline": Work(
        "what the machine can do: matrix products, copies",
        "call",
        ("numpy", "jax", "torch"),
        variants=("matmul", "copy"),
        runs=5,
    ),
}


@dataclasses.dataclass(frozen=True)
class Task:
    """One side's part in a comparison; it goes to the side's process as JSON.

    Attributes:
        work: a key of ``WORKS``.
        side: one of the work's sides.
        variant: one of the work's variants.
        arch: a network's name.
        batch: pictures in a batch.
        height: of the pictures.
        width: of the pictures.
        dtype: one of ``DTYPES``: what is computed in.
        steps: steps in a run; None for as many as take about two seconds (of training at least
            five).
        pictures: training pictures in an epoch; a fifth as many are for testing.
        classes: of the network.
        options: keywords that the network is made with, in either framework.
        sgd: ``lr``, ``momentum``, ``nesterov`` and ``weight_decay``.
        convolutions: the network's, as ``benchmarks.convolutions.Convolution`` takes them.
        needed_bytes: what a batch takes at the very least, in whichever framework.
        folder: where the parent keeps files for its workers.
        started: seconds since the epoch (the Unix one) at which the process was started.
    """

    work: str
    side: str
    variant: str = ""
    arch: str = "resnet20"
    batch: int = 128
    height: int = 32
    width: int = 32
    dtype: str = "float32"
    steps: int | None = None
    pictures: int = 50_000
    classes: int = 10
    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    sgd: dict[str, Any] = dataclasses.field(default_factory=dict)
    convolutions: list[dict[str, Any]] = dataclasses.field(default_factory=list)
    needed_bytes: int = 0
    folder: str = ""
    started: float = 0.0

    @property
    def tests(self) -> int:
        """Test pictures in an epoch."""
        return max(1, self.pictures // 5)

    def to_json(self) -> str:
        """One line."""
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, line: str) -> Self:
        """The reverse of :meth:`to_json`."""
        return cls(**json.loads(line))


class SkipSideError(Exception):
    """A side can't be measured here, for a reason that the message tells; the others can."""
