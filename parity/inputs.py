"""What a run of ``python -m train.cifar`` begins with and reads, for both frameworks."""

from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx

import flaxnets
import torchref
from parity.budget import DType
from parity.training import Batch
from train import loop
from train.datasets import Dataset
from train.engine import steps_per_epoch
from train.recipes import Config
from train.step import Batches, Preprocessing


def initial_networks(
    config: Config, dataset: Dataset, dtype: DType
) -> tuple[nnx.Module, torch.nn.Module]:
    """The run's initial network, without its dropout, and the PyTorch twin, both in ``dtype``."""
    initial = flaxnets.to_torch(loop.build_network(config, dataset))
    model = flaxnets.load_torch(
        initial,
        config.arch,
        dtype=dtype,
        param_dtype=dtype,
        num_classes=dataset.num_classes,
        dropout=0.0,
    )
    twin = torchref.create(config.arch, num_classes=dataset.num_classes, dropout=0.0)
    twin.load_state_dict({key: torch.from_numpy(value) for key, value in initial.items()})
    return model, twin.to(getattr(torch, dtype))


def augmented_batches(
    config: Config, dataset: Dataset, steps: int, dtype: np.dtype
) -> Iterator[Batch]:
    """The normalised pictures (N, H, W, 3) and labels (N,) that training sees, step by step."""
    key = jax.random.key(config.seed)
    preprocessing = Preprocessing.of(dataset, dtype)
    batches = Batches(preprocessing, config.batch_size, steps_per_epoch(config, dataset))

    @jax.jit
    def batch(step: jax.Array, images: jax.Array, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        indices = batches.indices(batches.order(key, step, len(labels)), step)
        return batches.inputs(key, step, images[indices]), labels[indices]

    pictures = jax.device_put((dataset.train_images, dataset.train_labels))
    for step in range(steps):
        images, labels = batch(jnp.int32(step), *pictures)
        yield np.asarray(images), np.asarray(labels)
