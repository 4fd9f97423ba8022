"""From the command line's options to the tasks of every side."""

import dataclasses
import importlib.util
import math
from collections.abc import Iterator, Sequence
from typing import Any

from benchmarks.measure import CouldNotMeasureError
from benchmarks.task import WORKS, Task

IMAGENET_BATCH = 32
INFERENCE_BATCHES = (1, 128)
SMALL_ENOUGH = 64  # pictures up to so many pixels a side are trained with the CIFAR recipe's batch


@dataclasses.dataclass(frozen=True)
class Options:
    """What to measure.

    Attributes:
        work: a key of ``WORKS``.
        arch: names of networks.
        batch: pictures in a batch; none for the recipe's (ImageNet's: 32; inference: 1 and 128).
        size: height and width of the pictures; None for the network's own.
        dtype: one of ``benchmarks.task.DTYPES``.
        sides: some of the work's sides; none for all.
        runs: of each side; None for the work's own number.
        steps: in a run; None for about two seconds'.
        pictures: training pictures in an epoch.
    """

    work: str
    arch: tuple[str, ...] = ("resnet20",)
    batch: tuple[int, ...] = ()
    size: tuple[int, int] | None = None
    dtype: str = "float32"
    sides: tuple[str, ...] = ()
    runs: int | None = None
    steps: int | None = None
    pictures: int = 50_000

    def to_dict(self) -> dict[str, Any]:
        """In a form that ``json.dumps`` takes."""
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Options":
        """The reverse of :meth:`to_dict`; JSON has made lists of the tuples."""
        known = {field.name for field in dataclasses.fields(cls)}
        if set(values) != known:
            raise ValueError(f"options are {sorted(known)}, got {sorted(values)}")
        tuples: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value
            for name, value in values.items()
        }
        return cls(**tuples)


@dataclasses.dataclass(frozen=True)
class Group:
    """Tasks whose sides are compared with one another.

    Attributes:
        tasks: one of each side.
        multiply_adds: of one picture's forward pass; 0 where no network is run.
    """

    tasks: tuple[Task, ...]
    multiply_adds: int


def choose_sides(options: Options) -> tuple[str, ...]:
    """The sides that are to be measured, in the work's own order.

    Raises:
        CouldNotMeasureError: one isn't the work's, or needs a package that isn't here.
    """
    known = WORKS[options.work].sides
    if unknown := sorted(set(options.sides) - set(known)):
        raise CouldNotMeasureError(
            f"{options.work} has no side {unknown[0]!r}; its sides are {', '.join(known)}"
        )
    sides = tuple(side for side in known if side in options.sides or not options.sides)
    for package in ("torch", "torchvision"):
        missing = importlib.util.find_spec(package) is None
        if missing and any(side.startswith("torch") for side in sides):
            raise CouldNotMeasureError(
                f"{package} is not installed, and the sides of PyTorch need it: "
                'pip install "flaxnets[parity]", or choose among the others with --sides'
            )
    return sides


def make_groups(options: Options, folder: str = "") -> list[Group]:
    """The tasks of all networks, batches and variants.

    Args:
        options: what to measure.
        folder: where this process keeps files for its workers.

    Raises:
        CouldNotMeasureError: a side or network is unknown, or the numbers don't go together.
    """
    sides = choose_sides(options)
    work = WORKS[options.work]
    if options.work == "roofline":
        return [
            Group(
                tuple(
                    Task(
                        "roofline", side, variant, arch="", dtype=options.dtype, steps=options.steps
                    )
                    for side in sides
                ),
                0,
            )
            for variant in work.variants
        ]
    groups = []
    for network, multiply_adds in _networks(options):
        if options.work == "epoch" and network.batch > options.pictures:
            raise CouldNotMeasureError(
                f"--batch {network.batch} is more than the {options.pictures:,} pictures"
            )
        for variant in work.variants:
            tasks = tuple(
                dataclasses.replace(network, side=side, variant=variant, folder=folder)
                for side in sides
            )
            groups.append(Group(tasks, multiply_adds))
    return groups


def _networks(options: Options) -> Iterator[tuple[Task, int]]:
    """A task of no side yet for every network and batch, and a picture's multiply-adds."""
    import flaxnets
    from benchmarks.convolutions import list_convolutions
    from flaxnets.published import cifar_recipe

    for name in options.arch:
        try:
            arch = flaxnets.canonical_name(name)
        except ValueError as error:
            raise CouldNotMeasureError(str(error)) from None
        config, recipe = flaxnets.get_config(arch), cifar_recipe(arch)
        height, width = options.size or flaxnets.info(arch).input_size
        dropout = {"dropout": 0.0} if getattr(config, "dropout", 0.0) else {}
        for batch in options.batch or _batches(options.work, recipe.batch_size, height):
            try:
                summary = flaxnets.summary(arch, (batch, height, width, 3))
            except ValueError as error:
                raise CouldNotMeasureError(f"{arch} on {height}x{width}: {error}") from None
            layers = (
                list_convolutions(arch, (batch, height, width, 3))
                if options.work == "convolutions"
                else []
            )
            rows = [row.activation_bytes for row in summary.rows]
            task = Task(
                options.work,
                side="",
                arch=arch,
                batch=batch,
                height=height,
                width=width,
                dtype=options.dtype,
                steps=options.steps,
                pictures=options.pictures,
                classes=config.num_classes,
                options=dropout,
                sgd={
                    "lr": recipe.learning_rate,
                    "momentum": recipe.momentum,
                    "nesterov": recipe.nesterov,
                    "weight_decay": recipe.weight_decay,
                },
                needed_bytes=_needed(options.work, rows, options.dtype)
                + 4 * 4 * math.prod((batch, height, width, 3)),
                convolutions=[dataclasses.asdict(layer) for layer in layers],
            )
            yield task, summary.multiply_adds // batch


def _batches(work: str, recipe: int, height: int) -> Sequence[int]:
    if work == "inference":
        return INFERENCE_BATCHES
    return (recipe if height <= SMALL_ENOUGH else IMAGENET_BATCH,)


def _needed(work: str, activation_bytes: list[int], dtype: str) -> int:
    """Bytes that a batch's activations take at the very least: all of them at once in training."""
    if not activation_bytes or work in ("input", "load"):
        return 0
    least = (
        max(activation_bytes) if work in ("inference", "convolutions") else sum(activation_bytes)
    )
    return least // 2 if dtype == "bfloat16" else least
