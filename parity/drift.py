"""How fast float32 training leaves float64's path, in Flax and in PyTorch itself."""

import itertools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from rich.progress import track

from parity.budget import FLOAT32_FACTOR, FLOAT32_FLOOR
from parity.comparison import Comparison
from parity.inputs import augmented_batches, initial_networks
from parity.plots import milestones
from parity.record import full_precision
from parity.training import Arrays, FlaxTrainer, optimizer_options, run_torch
from train import datasets, recipes
from train.datasets import Dataset
from train.engine import steps_per_epoch
from train.recipes import Config

ORACLE = "PyTorch float64"
FLAX = "Flax float32"
PYTORCH = ("PyTorch float32", "PyTorch float32, own loops")
SIDES = (ORACLE, FLAX, *PYTORCH)

CHECK = "drift"
# A network of each family, on scikit-learn's digits with their recipe.
NETWORKS = ("resnet20", "densenet_bc_40_12", "wrn_16_1")
QUICK_NETWORKS = ("wrn_10_1",)
STEPS, QUICK_STEPS = 60, 10

Record = dict[str, Any]


def check_drift(seed: int, quick: bool) -> tuple[list[Comparison], list[Record]]:
    """Follow the training of a network of each family in float32.

    Args:
        seed: of the run.
        quick: one small network, fewer steps.

    Returns:
        A comparison for every step, and the records of the curves.
    """
    dataset = datasets.load("digits", datasets.DEFAULT_DATA_DIR)
    records = []
    for arch in QUICK_NETWORKS if quick else NETWORKS:
        config = recipes.resolve(arch, "digits", seed=seed, dropout=0.0)
        records += drift_records(config, dataset, QUICK_STEPS if quick else STEPS)
    return compare_drift(records), records


def compare_drift(records: Sequence[Record]) -> list[Comparison]:
    """Flax's distance from float64 at every step, within the budget of PyTorch's own distances."""
    found = []
    for (arch, step), sides in _by_step(records).items():
        own = max(sides[side]["distance"] for side in PYTORCH)
        found.append(
            Comparison(
                network=arch,
                check=CHECK,
                dtype="float32",
                mode="train",
                layer=f"parameters after step {step}",
                error=sides[FLAX]["distance"],
                budget=FLOAT32_FACTOR * own + FLOAT32_FLOOR,
                measure="norm",
                reference=own,
            )
        )
    return found


def drift_records(
    config: Config, dataset: Dataset, steps: int, *, progress: bool = False
) -> list[Record]:
    """Train four times from the same float32 weights on the same float32 pictures.

    PyTorch in float64 is the oracle. Float32 PyTorch runs with oneDNN (cuDNN on a GPU) and with its
    own loops, which add in different orders: how far two correct programs part is seen twice.

    Args:
        config: as of ``python -m train.cifar``; the network trains without dropout.
        dataset: the pictures.
        steps: number of updates.
        progress: whether to show how far it is.

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
        watched = track(runs, "steps", total=steps, disable=not progress)
        for step, snapshots in enumerate(watched, start=1):
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


def _by_step(records: Sequence[Record]) -> dict[tuple[str, int], dict[str, Record]]:
    """The records of every side, by network and step."""
    rows: dict[tuple[str, int], dict[str, Record]] = {}
    for record in records:
        rows.setdefault((record["network"], record["step"]), {})[record["side"]] = record
    return rows


def print_drift(records: Sequence[Record]) -> None:
    """The table of some steps of one network, and Flax's pace against PyTorch's over all steps."""
    rows = {step: sides for (_, step), sides in _by_step(records).items()}
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
