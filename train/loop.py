"""A run, from its configuration to its exit status."""

import contextlib
import dataclasses
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx

import flaxnets
from train import datasets, report
from train.datasets import Dataset
from train.engine import Engine, choose_steps_per_dispatch, steps_per_epoch
from train.interrupt import Signals
from train.progress import Display
from train.recipes import Config
from train.run_folder import RunFolder, fingerprint
from train.trainer import Trainer

Build = Callable[[Config, Dataset], nnx.Module]


def build_network(config: Config, dataset: Dataset) -> nnx.Module:
    """Make the configured network, initialised from the run's seed, for the data set's classes."""
    key = jax.random.key(config.seed)
    rngs = nnx.Rngs(params=jax.random.fold_in(key, 2), dropout=jax.random.fold_in(key, 3))
    options: dict[str, Any] = {} if config.dropout is None else {"dropout": config.dropout}
    return flaxnets.create(
        config.arch,
        rngs=rngs,
        dtype=jnp.dtype(config.dtype),
        num_classes=dataset.num_classes,
        **options,
    )


@contextlib.contextmanager
def prepare(
    config: Config,
    dataset: Dataset,
    out: Path,
    *,
    resume: bool = False,
    data_dir: Path = datasets.DEFAULT_DATA_DIR,
    build: Build = build_network,
) -> Iterator[Trainer]:
    """Make a run, or take one up again, and yield its :class:`Trainer`, ready to run.

    Args:
        config: what to do; to resume, the folder's own :attr:`RunFolder.config`.
        dataset: what to train on.
        out: the run's folder.
        resume: go on from the folder's last checkpoint, where there is one.
        data_dir: where the data set's files are, to be noted in config.json.
        build: makes the network.

    Raises:
        ValueError: the batch size doesn't suit the data or the devices, the network can't be, or
            the checkpoint or the data aren't the run's.
        FileExistsError: the folder already holds a run, and it isn't to be resumed.
        FileNotFoundError: it holds none to resume.
    """
    steps = steps_per_epoch(config, dataset)
    if config.steps_per_dispatch is None:
        chosen = choose_steps_per_dispatch(steps)
        config = dataclasses.replace(config, steps_per_dispatch=chosen)
    engine = Engine(config, dataset, build(config, dataset))
    # The folder comes after all that can be wrong with the configuration.
    if resume:
        folder = RunFolder.open(out)
        if folder.record["data"]["fingerprint"] != fingerprint(dataset):
            raise ValueError(f"the data aren't those that the run in {out} began with")
    else:
        folder = RunFolder.create(out, config, dataset, data_dir)
    with Display(config.epochs, steps) as display, Signals(display.line) as signals:
        for line in report.introduction(config, dataset, folder, engine.parameters, steps):
            display.line(line)
        with contextlib.closing(Trainer(config, engine, folder, display, signals)) as trainer:
            if resume:
                trainer.restore()
            yield trainer


def run(*arguments: Any, **options: Any) -> int:
    """Do the run that :func:`prepare` makes of the same arguments, and return its exit status.

    It is 0 when all epochs are done, 1 where the loss became infinite or nan, and 128 plus the
    signal's number after SIGINT (130) or SIGTERM (143).
    """
    with prepare(*arguments, **options) as trainer:
        return trainer.run()
