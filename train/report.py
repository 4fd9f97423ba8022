"""The words of a run: what it begins with, what each epoch adds, and how it ends."""

import shlex
from collections.abc import Sequence
from typing import Any

import jax

from train.datasets import Dataset
from train.recipes import Config
from train.run_folder import RunFolder

Metric = dict[str, Any]

HEADER = "epoch     step train loss train acc test loss test acc       lr images/s    time"


def row(train: Metric, test: Metric) -> str:
    """One epoch as a line of the table under :data:`HEADER`."""
    return (
        f"{train['epoch']:5d} {train['step']:8,d} "
        f"{train['loss']:10.4f} {100 * train['accuracy']:7.2f} % "
        f"{test['loss']:9.4f} {100 * test['accuracy']:6.2f} % "
        f"{train['lr']:8.3g} {train['images_per_second']:8,.0f} "
        f"{duration(train['seconds'] + test['seconds']):>7}"
    )


def duration(seconds: float) -> str:
    """Hours, minutes and seconds as 1:02:03, 2:03 or 0:03."""
    minutes, second = divmod(round(seconds), 60)
    hours, minute = divmod(minutes, 60)
    return f"{hours}:{minute:02d}:{second:02d}" if hours else f"{minute}:{second:02d}"


def introduction(
    config: Config, dataset: Dataset, folder: RunFolder, parameters: int, steps_per_epoch: int
) -> list[str]:
    """What is trained on what, how, on which device and into which folder."""
    height, width, channels = dataset.train_images.shape[1:]
    devices = jax.devices()
    left_out = len(dataset.train_images) - steps_per_epoch * config.batch_size
    changes = {
        "step": f"times {config.decay_factor:g} at epoch {_listed(config.milestones)}",
        "cosine": "falling to 0 along a cosine",
        "constant": "constant",
    }[config.schedule]
    if config.warmup_epochs:
        changes += f", after a warm-up over {_count(config.warmup_epochs, 'epoch')}"
    return [
        f"{config.arch} ({parameters:,} parameters, {config.dtype}) on {dataset.name}: "
        f"{len(dataset.train_images):,} training and {len(dataset.test_images):,} test pictures of "
        f"{height}x{width}x{channels}",
        f"{_count(config.epochs, 'epoch')} of {steps_per_epoch:,} steps of {config.batch_size} "
        "pictures"
        + (f" (the {left_out:,} left over differ from epoch to epoch)" if left_out else ""),
        f"SGD, learning rate {config.learning_rate:g} ({changes}), momentum {config.momentum:g}"
        f"{' (Nesterov)' if config.nesterov else ''}, weight decay {config.weight_decay:g}, "
        f"seed {config.seed}",
        f"on {_count(len(devices), f'{devices[0].device_kind} device')}, "
        f"{_count(config.steps_per_dispatch or 1, 'step')} per dispatch, into {folder.path}",
        *dataset.notes,
    ]


def _count(number: float, thing: str) -> str:
    return f"{number:g} {thing}{'' if number == 1 else 's'}"


def _listed(epochs: Sequence[int]) -> str:
    return ", ".join(map(str, epochs)) or "no epoch"


def stopped(why: object, step: int, total_steps: int, folder: RunFolder) -> str:
    """A run was interrupted, and how to go on."""
    return (
        f"\nStopped by {why} at step {step:,} of {total_steps:,}; all is saved. Go on with\n"
        f"  python -m train.cifar --resume --out {shlex.quote(str(folder.path))}"
    )


def not_finite(what: str, step: int, epoch: int, rate: float, checkpoint: str | None) -> str:
    """A run left the finite numbers."""
    kept = f"The last good checkpoint is {checkpoint}" if checkpoint else "No checkpoint was saved"
    return (
        f"{what} at step {step:,} (epoch {epoch}, learning rate {rate:.4g}): the run ends here. "
        f"{kept}. A new run with a lower --learning-rate, or with --warmup-epochs, may fare better."
    )


def conclusion(folder: RunFolder, seconds: float) -> list[str]:
    """The best and the last result, and where everything is."""
    tests = folder.tested()
    best = max(tests, key=lambda line: line["accuracy"])
    places = {
        "curves": folder.path / "curves.png",
        "metrics": folder.path / "metrics.jsonl",
        "configuration": folder.path / "config.json",
        "best checkpoint": folder.checkpoints("best") / str(best["step"]),
        "last checkpoint": folder.checkpoints("last") / str(tests[-1]["step"]),
    }
    return [
        "",
        f"Test accuracy {100 * tests[-1]['accuracy']:.2f} %, "
        f"best {100 * best['accuracy']:.2f} % after epoch {best['epoch']}; "
        f"{duration(seconds)} in all.",
        *(f"  {name:16} {place}" for name, place in places.items()),
    ]
