"""This project's side: its networks and ``train``, as its users run them.

A CPU counts as one device for each core, the state is donated, and a dispatch makes as many steps
as ``train`` chooses.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

import flaxnets
from benchmarks import data, jax_common
from benchmarks.task import Task
from flaxnets.convolution import conv2d
from train import devices, recipes
from train.compilation import compile_ahead
from train.datasets import Dataset
from train.engine import Engine, choose_steps_per_dispatch
from train.optimizer import sgd
from train.schedule import constant
from train.step import (
    Batches,
    Metrics,
    Preprocessing,
    TrainState,
    make_train_chunk,
    make_train_step,
    split,
)


def _prepare_devices(task: Task) -> None:
    devices.use_cores(task.batch)
    jax_common.prepare_device(task)


def _network(task: Task) -> nnx.Module:
    model = flaxnets.build(
        jax_common.network_config(task), rngs=nnx.Rngs(0), dtype=jax_common.compute_dtype(task)
    )
    if task.work != "compile":  # which is measured with the network's own first weights
        jax_common.set_weights(model)
    return model


def _sharding(*axes: str | None) -> NamedSharding:
    return NamedSharding(Mesh(np.asarray(jax.devices()), ("data",)), PartitionSpec(*axes))


def _steps_per_epoch(task: Task) -> int:
    return max(1, task.pictures // task.batch)


def _dispatch_length(task: Task) -> int:
    if task.work == "compile":
        return 1
    return min(task.steps or 1000, choose_steps_per_dispatch(_steps_per_epoch(task)))


class Training:
    """Training steps on pictures that lie on the devices, several in a dispatch."""

    def __init__(self, task: Task) -> None:
        _prepare_devices(task)
        options = dict(task.sgd)
        optimizer = sgd(constant(options.pop("lr")), **options)
        graph, _, state = split(_network(task), optimizer)
        everywhere = _sharding()
        self.state = jax.device_put(state, everywhere)
        images, labels = data.batches(task)
        self._batches = jax.device_put(
            (images.astype(jax_common.compute_dtype(task)), labels), _sharding(None, "data")
        )
        self._length = length = _dispatch_length(task)
        step = make_train_step(graph, optimizer)

        def chunk(
            state: TrainState, images: jax.Array, labels: jax.Array
        ) -> tuple[TrainState, Metrics]:
            def one_step(state: TrainState, number: jax.Array) -> tuple[TrainState, Metrics]:
                return step(state, images[number], labels[number])

            return jax.lax.scan(one_step, state, jnp.arange(length) % data.BATCHES)

        self._chunk = compile_ahead(
            jax.jit(chunk, donate_argnums=0, out_shardings=everywhere), self.state, *self._batches
        )

    def advance(self, steps: int) -> list[float]:
        """Make so many updates, rounded up to whole dispatches; the loss before each."""
        losses = []
        for _ in range(-(-steps // self._length)):
            self.state, metrics = self._chunk(self.state, *self._batches)
            losses.append(metrics["loss"])
        return [float(loss) for loss in np.concatenate(jax.device_get(losses))]

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies by PyTorch's names and in its layout."""
        return jax_common.parameters(self.state.params)


class Inference:
    """The forward pass in evaluation mode, the batch split over the devices."""

    def __init__(self, task: Task) -> None:
        _prepare_devices(task)
        model = _network(task)
        model.eval()
        graph, state = nnx.split(model)
        self._state = jax.device_put(state, _sharding())
        images, _ = data.batches(task)
        self._images = jax.device_put(
            list(images.astype(jax_common.compute_dtype(task))), _sharding("data")
        )
        self._forward: Any = jax.jit(lambda state, x: nnx.merge(graph, state, copy=True)(x))

    def advance(self, steps: int) -> list[jax.Array]:
        """So many batches, one after the other; the logits of each."""
        return [
            jax.block_until_ready(self._forward(self._state, self._images[step % data.BATCHES]))
            for step in range(steps)
        ]


class Convolutions(jax_common.Convolutions):
    """The passes of convolutions, the batch split over the devices."""

    def __init__(self, task: Task) -> None:
        _prepare_devices(task)
        super().__init__(task, conv2d, _sharding("data"), _sharding())


class Input:
    """The data path of ``train``'s dispatches, with the network left out."""

    def __init__(self, task: Task) -> None:
        _prepare_devices(task)
        pictures = data.raw_pictures(task, max(task.pictures, task.batch))
        self._pictures = jax.device_put(pictures, _sharding())
        preprocessing = Preprocessing(
            data.MEAN, data.STD, data.CROP_PADDING, flip=True, dtype=jax_common.compute_dtype(task)
        )
        self._steps_per_epoch = _steps_per_epoch(task)
        batches = Batches(preprocessing, task.batch, self._steps_per_epoch)
        self._length = _dispatch_length(task)
        chunk = make_train_chunk(
            _keep, batches, length=self._length, batch_sharding=_sharding("data")
        )
        self._chunk: Any = jax.jit(chunk)
        self._key = jax.random.key(0)
        self._step = 0

    def advance(self, steps: int) -> list[None]:
        """Make so many batches, rounded up to whole dispatches."""
        dispatches = -(-steps // self._length)
        for _ in range(dispatches):
            if self._steps_per_epoch - self._step < self._length:
                self._step = 0
            nothing: Any = {"weight": jnp.zeros(())}
            state = TrainState(jnp.asarray(self._step, jnp.int32), nothing, nothing, ())
            jax.block_until_ready(self._chunk(state, self._key, *self._pictures))
            self._step += self._length
        return [None] * (dispatches * self._length)


def _keep(
    state: TrainState, images: jax.Array, labels: jax.Array
) -> tuple[TrainState, dict[str, jax.Array]]:
    """A training step that only asks for its batch."""
    return dataclasses.replace(state, step=state.step + 1), {"images": images, "labels": labels}


class Epoch:
    """Epochs of ``train``'s engine, each with its evaluation."""

    def __init__(self, task: Task) -> None:
        _prepare_devices(task)
        images, labels = data.raw_pictures(task, task.pictures)
        test_images, test_labels = data.raw_pictures(task, task.tests, seed=1)
        dataset = Dataset(
            name="synthetic",
            train_images=images,
            train_labels=labels,
            test_images=test_images,
            test_labels=test_labels,
            mean=data.MEAN,
            std=data.STD,
            num_classes=task.classes,
            class_names=tuple(map(str, range(task.classes))),
            flip=True,
            crop_padding=data.CROP_PADDING,
        )
        dtype = "bfloat16" if task.dtype == "bfloat16" else "float32"
        config = recipes.resolve(task.arch, "cifar10", batch_size=task.batch, dtype=dtype)
        self._engine = Engine(config, dataset, _network(task))
        self._engine.compile_evaluation()
        self._step = 0

    def advance(self, epochs: int) -> list[float]:
        """Train for so many epochs; the test loss after each."""
        losses = []
        for _ in range(epochs):
            end = self._step + self._engine.steps_per_epoch
            while self._step < end:
                length = self._engine.dispatch_length(self._step)
                if not self._engine.is_compiled(length):
                    self._engine.compile_chunk(length)
                self._engine.advance(length)
                self._step += length
            losses.append(self._engine.evaluate(lambda done, total: None)[0])
        return losses

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies by PyTorch's names and in its layout."""
        return jax_common.parameters(self._engine.state.params)
