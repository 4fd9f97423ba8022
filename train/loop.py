"""A run, from its configuration to its exit status."""

import contextlib
import dataclasses
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
from flax import nnx

import flaxnets
from train import report
from train.datasets import Dataset
from train.engine import choose_steps_per_dispatch, steps_per_epoch
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
    options = {} if config.dropout is None else {"dropout": config.dropout}
    return flaxnets.create(
        config.arch,
        rngs=rngs,
        dtype=jnp.dtype(config.dtype),
        num_classes=dataset.num_classes,
        **options,
    )


def run(
    config: Config,
    dataset: Dataset,
    out: Path,
    *,
    resume: bool = False,
    data_dir: Path | None = None,
    build: Build = build_network,
) -> int:
    """Train, or go on training, in a run folder.

    Args:
        config: what to do; to resume, the folder's own :attr:`RunFolder.config`.
        dataset: what to train on.
        out: the run's folder.
        resume: go on from the folder's last checkpoint, where there is one.
        data_dir: where the data set's files are, to be noted in config.json.
        build: makes the network.

    Returns:
        The exit status: 0 when all epochs are done, 1 where the loss became infinite or nan,
        128 plus the signal's number after SIGINT (130) or SIGTERM (143).

    Raises:
        ValueError: the batch size doesn't suit the data or the devices, or the network, the
          checkpoint or the data aren't the run's.
        FileExistsError: the folder already holds a run, and it isn't to be resumed.
        FileNotFoundError: it holds none to resume.
    """
    steps = steps_per_epoch(config, dataset)
    if config.steps_per_dispatch is None:
        chosen = choose_steps_per_dispatch(steps)
        config = dataclasses.replace(config, steps_per_dispatch=chosen)
    model = build(config, dataset)
    if resume:
        folder = RunFolder.open(out)
        if folder.record["data"]["fingerprint"] != fingerprint(dataset):
            raise ValueError(f"the data aren't those that the run in {out} began with")
    else:
        folder = RunFolder.create(out, config, dataset, data_dir)
    with Display(config.epochs, steps) as display, Signals(display.line) as signals:
        for line in report.introduction(
            config, dataset, folder, flaxnets.count_parameters(model), steps
        ):
            display.line(line)
        with contextlib.closing(
            Trainer(config, dataset, model, folder, display, signals)
        ) as trainer:
            if resume:
                trainer.restore()
            return trainer.run()
