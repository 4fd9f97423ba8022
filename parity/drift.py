"""How fast float32 training leaves float64's path, in Flax and in PyTorch itself."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.progress import track

from parity.inputs import augmented_batches, initial_networks
from parity.plots import milestones
from parity.record import full_precision
from parity.training import Arrays, FlaxTrainer, optimizer_options, run_torch
from train.datasets import Dataset
from train.engine import steps_per_epoch
from train.recipes import Config

ORACLE = "PyTorch float64"
FLAX = "Flax float32"
PYTORCH = ("PyTorch float32", "PyTorch float32, own loops")
SIDES = (ORACLE, FLAX, *PYTORCH)

Record = dict[str, Any]


def drift_records(config: Config, dataset: Dataset, steps: int) -> list[Record]:
    """Train four times from the same float32 weights on the same float32 pictures.

    PyTorch in float64 is the oracle. Float32 PyTorch runs with oneDNN (cuDNN on a GPU) and with its
    own loops, which add in different orders: how far two correct programs part is seen twice.

    Args:
        config: as of ``python -m train.cifar``; the network trains without dropout.
        dataset: the pictures.
        steps: number of updates.

    Returns:
        A record per step and side: "network", "step" (1 for the first update), "side" (of
        ``SIDES``), "distance" of all parameters together from the oracle's after the update,
        ||a - b|| / ||b||, and "loss" before the update.
    """
    epoch = steps_per_epoch(config, dataset)
    records: list[Record] = []
    with full_precision("float32"):
        model, twin = initial_networks(config, dataset, "float32")
        _, oracle = initial_networks(config, dataset, "float64")
        trainer = FlaxTrainer(model, [config.learning_rates(epoch)], [optimizer_options(config)])
        shared = itertools.tee(
            augmented_batches(config, dataset, steps, jnp.dtype("float32")), len(SIDES)
        )
        runs = zip(
            run_torch(oracle, config, epoch, shared[0]),
            trainer.run(shared[1]),
            run_torch(twin, config, epoch, shared[2]),
            run_torch(twin, config, epoch, shared[3], library=False),
            strict=True,
        )
        for step, snapshots in enumerate(track(runs, "steps", total=steps), start=1):
            exact = snapshots[0].parameters
            records += [
                {
                    "network": config.arch,
                    "step": step,
                    "side": side,
                    "distance": distance(snapshot.parameters, exact),
                    "loss": float(snapshot.loss[""]),
                }
                for side, snapshot in zip(SIDES, snapshots, strict=True)
            ]
    return records


def distance(parameters: Arrays, oracle: Arrays) -> float:
    """||a - b|| / ||b|| of all arrays together, in float64."""
    difference = sum(np.sum(np.square(parameters[key] - oracle[key])) for key in oracle)
    return float(np.sqrt(difference / sum(np.sum(np.square(each)) for each in oracle.values())))


def print_drift(records: Sequence[Record]) -> None:
    """The table of some steps, and Flax's pace against PyTorch's over all of them."""
    rows: dict[int, dict[str, Record]] = {}
    for record in records:
        rows.setdefault(record["step"], {})[record["side"]] = record
    print(f"{'':>6}{'distance of all parameters from float64':>41}{'loss':>39}")
    names = ("Flax", "PyTorch", "own loops")
    heads = "".join(f"{name:>12}" for name in (*names, "float64", *names))
    print(f"{'step':>6}{heads}")
    for step in milestones(len(rows)):
        row = rows[step]
        distances = "".join(f"{row[side]['distance']:>12.1e}" for side in (FLAX, *PYTORCH))
        losses = "".join(f"{row[side]['loss']:>12.6f}" for side in SIDES)
        print(f"{step:>6}{distances}{losses}")
    ratios = [
        row[FLAX]["distance"] / max(row[side]["distance"] for side in PYTORCH)
        for row in rows.values()
    ]
    print(
        "Flax's distance over the larger of PyTorch's: "
        f"median {np.median(ratios):.2f}, largest {max(ratios):.2f}, last {ratios[-1]:.2f}"
    )
