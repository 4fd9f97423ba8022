"""A tiny network and data set, so that whole runs take seconds; also a command for killed runs.

python tests/train/tiny.py OUT [--resume] [--hang-at STEP]  trains, as train.cifar would.
"""

import dataclasses
import sys
import time
from pathlib import Path

import jax
import numpy as np
from flax import nnx

from train import loop
from train.datasets import Dataset
from train.engine import Engine
from train.recipes import Config

CONFIG = Config(
    arch="tiny",
    dataset="tiny",
    epochs=3,
    batch_size=8,
    learning_rate=0.1,
    schedule="cosine",
    milestones=(),
    decay_factor=0.1,
    warmup_epochs=1.0,
    momentum=0.9,
    nesterov=True,
    weight_decay=1e-3,
    seed=3,
    steps_per_dispatch=2,
    checkpoint_every=4,
)


class Network(nnx.Module):
    """Convolution, batch norm, ReLU, mean over positions, dropout, linear."""

    def __init__(self, rngs: nnx.Rngs, classes: int = 4, dropout: float = 0.2) -> None:
        self.conv = nnx.Conv(3, 6, (3, 3), strides=2, rngs=rngs)
        self.bn = nnx.BatchNorm(6, rngs=rngs)
        self.dropout = nnx.Dropout(dropout, rngs=rngs)
        self.fc = nnx.Linear(6, classes, rngs=rngs)

    def __call__(self, images: jax.Array) -> jax.Array:
        """Pictures to logits."""
        features = nnx.relu(self.bn(self.conv(images))).mean(axis=(1, 2))
        return self.fc(self.dropout(features))


def dataset(train: int = 59, test: int = 21) -> Dataset:
    """Pictures of noise whose class is a bright channel or none; 7 batches of 8 and 3 left over."""
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 4, train + test).astype(np.int32)
    images = rng.integers(0, 120, (train + test, 8, 8, 3))
    for index, label in enumerate(labels):
        images[index, :, :, :label] += 60
    images = images.astype(np.uint8)
    return Dataset(
        name="tiny",
        train_images=images[:train],
        train_labels=labels[:train],
        test_images=images[train:],
        test_labels=labels[train:],
        mean=(0.4, 0.4, 0.3),
        std=(0.2, 0.2, 0.2),
        num_classes=4,
        class_names=("a", "b", "c", "d"),
        flip=True,
        crop_padding=1,
    )


def build(config: Config, data: Dataset) -> nnx.Module:
    """Make the network from the run's seed."""
    rate = 0.2 if config.dropout is None else config.dropout
    return Network(nnx.Rngs(config.seed), data.num_classes, rate)


def run(out: Path, *, resume: bool = False, **changes: object) -> int:
    """Train into a folder."""
    config = dataclasses.replace(CONFIG, **changes)
    return loop.run(config, dataset(), out, resume=resume, build=build)


def hang_at(step: int) -> None:
    """Have a run print "hanging" and do nothing more when it has made so many updates."""
    advance = Engine.advance

    def hanging(self: Engine, length: int) -> tuple[np.ndarray, int, bool]:
        if int(self.state.step) == step:
            print("hanging", flush=True)
            time.sleep(3600)
        return advance(self, length)

    Engine.advance = hanging


if __name__ == "__main__":
    if "--hang-at" in sys.argv:
        hang_at(int(sys.argv[sys.argv.index("--hang-at") + 1]))
    sys.exit(run(Path(sys.argv[1]), resume="--resume" in sys.argv))
