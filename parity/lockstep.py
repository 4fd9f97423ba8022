"""Both frameworks train the same network on the same batches, step by step.

    python -m parity.lockstep --arch resnet20 --data-dir data --steps 100 --plot curves.png
    python -m parity.lockstep --arch resnet20 --dataset digits --drift --steps 60 --plot drift.png

The Flax side is the step that ``python -m train.cifar`` runs, with its recipe, its order of
pictures, its crops and its flips; the PyTorch side is the twin with ``torch.optim.SGD`` and a
scheduler of PyTorch's on those very batches, from the same initial weights. After every update the
learning rate, the loss, all gradients, momentum buffers, parameters and running statistics are
compared.

Training amplifies rounding errors, at every step anew and by more the higher the learning rate is.
``check`` therefore trains tiny networks for a few updates at a low rate: enough for every schedule
to change several times, and few enough for float64 to end within some thousand ulp of PyTorch, far
within the budget of 1e-9. In float32 the two part sooner, and ``--drift`` shows that Flax parts
from float64 no faster than PyTorch does.
"""

import argparse
import dataclasses
import itertools
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from rich.progress import track

from parity import plots
from parity.budget import FLOAT64_BACKWARD, DType
from parity.cases import TINY_DENSENET, TINY_RESNET, Case
from parity.comparison import Comparison
from parity.deviations import Deviation, compare, judge
from parity.drift import drift_records, print_drift
from parity.inputs import augmented_batches, initial_networks
from parity.pairs import make_pair
from parity.record import full_precision
from parity.training import FlaxTrainer, optimizer_options, run_torch
from parity.weights import random_batches
from train import datasets, recipes
from train.engine import steps_per_epoch
from train.schedule import SCHEDULES as SCHEDULE_NAMES

FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "resnet": ("resnet20", TINY_RESNET | {"stage_sizes": (1, 1), "shortcut": "projection"}),
    "densenet": ("densenet_bc_40_12", TINY_DENSENET | {"block_sizes": (2, 1)}),
    "wrn": ("wrn_10_1", {}),
    "preact": ("preact_resnet110", TINY_RESNET | {"stage_sizes": (1, 1)}),
}
QUICK = "preact"
OPTIMIZERS: tuple[dict[str, Any], ...] = tuple(
    {"momentum": momentum, "nesterov": nesterov, "weight_decay": weight_decay}
    for weight_decay in (5e-4, 0.0)
    for momentum, nesterov in ((0.0, False), (0.9, False), (0.9, True))
)
SCHEDULES: tuple[dict[str, Any], ...] = tuple(
    {"schedule": name, "milestones": (1, 2) if name == "step" else (), "warmup_epochs": warm_up}
    for name in SCHEDULE_NAMES
    for warm_up in (0.0, 1.5)
)
EPOCH = 3  # updates
RECIPE = recipes.Config(
    arch="",
    dataset="noise",
    epochs=3,
    batch_size=8,
    learning_rate=0.05,
    schedule="constant",
    milestones=(),
    decay_factor=0.1,
    warmup_epochs=0.0,
    momentum=0.0,
    nesterov=False,
    weight_decay=0.0,
)


class Step(NamedTuple):
    """One update in both frameworks.

    Attributes:
        flax_loss: before the update.
        torch_loss: of the twin.
        deviations: one of each kind, causes before effects.
    """

    flax_loss: float
    torch_loss: float
    deviations: list[Deviation]

    def error(self, kind: str) -> float:
        """The largest relative error of a kind of array."""
        return next(each.error for each in self.deviations if each.kind == kind)


def check(seed: int, quick: bool) -> Iterator[Comparison]:
    """Train a tiny network of every family in float64, by every optimizer and every schedule.

    Args:
        seed: of weights, pictures and labels.
        quick: one of the families.
    """
    for family in (QUICK,) if quick else FAMILIES:
        yield from check_family(family, OPTIMIZERS, SCHEDULES, seed)


def check_family(
    family: str,
    optimizers: Sequence[dict[str, Any]],
    schedules: Sequence[dict[str, Any]],
    seed: int,
) -> list[Comparison]:
    """Train the family's network by every pair of optimizer and schedule.

    Args:
        family: key of ``FAMILIES``.
        optimizers: fields of ``train.recipes.Config``.
        schedules: fields of it, too.
        seed: of weights, pictures and labels.
    """
    arch, overrides = FAMILIES[family]
    height, width, size = 8, 12, RECIPE.batch_size
    drawn = random_batches(
        count=RECIPE.epochs * EPOCH, size=size, height=height, width=width, classes=10, seed=seed
    )
    batches = list(zip(drawn.images, drawn.labels, strict=True))
    pair = make_pair(Case(family, arch, overrides, height, width, size), seed=seed)
    found: list[Comparison] = []
    with full_precision("float64"):
        trainer = FlaxTrainer(
            pair.make_flax("float64"),
            [dataclasses.replace(RECIPE, **each).learning_rates(EPOCH) for each in schedules],
            optimizers,
        )
        for (option, optimizer), (number, schedule) in itertools.product(
            enumerate(optimizers), enumerate(schedules)
        ):
            config = dataclasses.replace(RECIPE, **optimizer, **schedule)
            flax = trainer.run(batches, schedule=number, option=option)
            torch = run_torch(pair.torch, config, EPOCH, batches)
            steps = enumerate(zip(flax, torch, strict=True), start=1)
            found += judge(
                title(family, config), [compare(step, *snapshots) for step, snapshots in steps]
            )
    return found


def title(family: str, config: recipes.Config) -> str:
    """The run in words: "wrn, nesterov, weight decay, cosine, warm-up"."""
    plain = "nesterov" if config.nesterov else "momentum" if config.momentum else "no momentum"
    decay = "weight decay" if config.weight_decay else ""
    warm_up = "warm-up" if config.warmup_epochs else ""
    return ", ".join(filter(None, (family, plain, decay, config.schedule, warm_up)))


def run(
    config: recipes.Config, dataset: datasets.Dataset, steps: int, *, dtype: DType = "float32"
) -> list[Step]:
    """Make ``steps`` updates in both frameworks, from the same weights, on the same batches.

    Args:
        config: as of ``python -m train.cifar``; the network trains without dropout.
        dataset: the pictures.
        steps: number of updates.
        dtype: of both sides.
    """
    epoch = steps_per_epoch(config, dataset)
    with full_precision(dtype):
        model, twin = initial_networks(config, dataset, dtype)
        trainer = FlaxTrainer(model, [config.learning_rates(epoch)], [optimizer_options(config)])
        batches = itertools.tee(augmented_batches(config, dataset, steps, jnp.dtype(dtype)))
        sides = zip(
            trainer.run(batches[0]), run_torch(twin, config, epoch, batches[1]), strict=True
        )
        return [
            Step(float(flax.loss[""]), float(torch.loss[""]), compare(number, flax, torch))
            for number, (flax, torch) in enumerate(track(sides, "steps", total=steps), start=1)
        ]


def main(command: list[str] | None = None) -> int:
    """The command line; returns the exit status, 1 where float64 is out of budget."""
    arguments = _parser().parse_args(command)
    dtype: DType = arguments.dtype
    try:
        if arguments.plot is not None and not arguments.plot.absolute().parent.is_dir():
            raise ValueError(f"--plot: there is no folder {arguments.plot.parent}")
        config = recipes.resolve(
            arguments.arch,
            arguments.dataset,
            batch_size=arguments.batch_size,
            learning_rate=arguments.learning_rate,
            seed=arguments.seed,
            dropout=0.0,
        )
        dataset = datasets.load(arguments.dataset, arguments.data_dir)
        name = f"{config.arch} on {config.dataset}"
        if arguments.drift:
            records = drift_records(config, dataset, arguments.steps, progress=True)
            print(f"{name}, batch {config.batch_size}, learning rate {config.learning_rate:g}")
            print_drift(records)
            if arguments.plot is not None:
                plots.draw_drift(records, f"{name}, the same batches", arguments.plot)
            return 0
        steps = run(config, dataset, arguments.steps, dtype=dtype)
        print(f"{name}, {dtype}, batch {config.batch_size}")
        _print_steps(steps)
        if arguments.plot is not None:
            plots.draw_lockstep(
                np.array([step.flax_loss for step in steps]),
                np.array([step.torch_loss for step in steps]),
                np.array([step.error("parameters") for step in steps]),
                f"{name}, the same batches in {dtype}",
                arguments.plot,
            )
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return _verdict(steps) if dtype == "float64" else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m parity.lockstep", description="Train in both frameworks, step by step."
    )
    parser.add_argument("--arch", default="resnet20")
    parser.add_argument("--dataset", default="cifar10")
    parser.add_argument("--data-dir", type=Path, default=datasets.DEFAULT_DATA_DIR)
    parser.add_argument("--steps", type=_positive, default=100)
    parser.add_argument("--batch-size", type=int)
    parser.add_argument("--learning-rate", type=float)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--dtype", choices=("float32", "float64"), default="float32")
    parser.add_argument(
        "--drift",
        action="store_true",
        help="how far float32 Flax and float32 PyTorch are from float64 PyTorch",
    )
    parser.add_argument("--plot", type=Path, help="PNG of the curves")
    return parser


def _positive(text: str) -> int:
    if not text.isdecimal() or not int(text):
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _print_steps(steps: Sequence[Step]) -> None:
    kinds = ("gradients", "momentum", "parameters", "statistics")
    heads = "".join(f"{kind:>12}" for kind in kinds)
    print(f"{'step':>6}{'Flax loss':>14}{'PyTorch loss':>14}{'gap':>11}{heads}")
    for number in plots.milestones(len(steps)):
        step = steps[number - 1]
        errors = "".join(f"{step.error(kind):>12.1e}" for kind in kinds)
        gap = abs(step.flax_loss - step.torch_loss)
        print(f"{number:>6}{step.flax_loss:>14.6f}{step.torch_loss:>14.6f}{gap:>11.1e}{errors}")


def _verdict(steps: Sequence[Step]) -> int:
    out = [each for step in steps for each in step.deviations if not each.ok]
    if not out:
        print(f"EQUAL: every array within {FLOAT64_BACKWARD:.0e} after each of {len(steps)} steps")
        return 0
    first = out[0]
    print(f"NOT EQUAL: {first.place}, error {first.error:.1e}, budget {FLOAT64_BACKWARD:.0e}")
    return 1


if __name__ == "__main__":
    sys.exit(main())
