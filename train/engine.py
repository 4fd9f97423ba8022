"""The part of a run that lives on the devices: state, data and the compiled functions."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from train import optimizer
from train.compilation import compile_ahead
from train.datasets import Dataset
from train.recipes import Config
from train.step import (
    Batches,
    Preprocessing,
    make_evaluate,
    make_train_chunk,
    make_train_step,
    split,
)

_SMALLEST_TEST_BATCH = 128


class Engine:
    """Trains and evaluates a network on all devices there are.

    The state and the data lie on every device; each computes its share of every batch.

    Attributes:
        state: the current :class:`train.step.TrainState`.
        steps_per_epoch: whole batches in the training set; what is left over is dropped.
        rates: the learning rate as a function of the step.
        parameters: number of trained parameters.
        tests: number of test pictures.
        steps_per_dispatch: updates made by one call of :meth:`advance`, but for an epoch's last.

    Raises:
        ValueError: the batch size and the data or the devices don't go together.
    """

    def __init__(self, config: Config, dataset: Dataset, model: nnx.Module) -> None:
        self.steps_per_epoch = steps_per_epoch(config, dataset)
        self.rates = config.learning_rates(self.steps_per_epoch)
        sgd = optimizer.sgd(
            self.rates,
            momentum=config.momentum,
            nesterov=config.nesterov,
            weight_decay=config.weight_decay,
        )
        self.steps_per_dispatch = config.steps_per_dispatch or choose_steps_per_dispatch(
            self.steps_per_epoch
        )
        devices = jax.device_count()
        mesh = Mesh(np.asarray(jax.devices()), ("data",))
        everywhere = NamedSharding(mesh, PartitionSpec())
        shares = NamedSharding(mesh, PartitionSpec("data"))
        graph, evaluation_graph, state = split(model, sgd)
        self.parameters = sum(leaf.size for leaf in jax.tree.leaves(state.params))
        self.state = jax.device_put(state, everywhere)
        self._key = jax.device_put(jax.random.key(config.seed), everywhere)
        self._train_data = jax.device_put((dataset.train_images, dataset.train_labels), everywhere)
        self.tests = len(dataset.test_images)
        test_batch = max(config.batch_size, _SMALLEST_TEST_BATCH)
        self._test_batch = test_batch + -test_batch % devices
        self._test_data = jax.device_put(_padded(dataset, self._test_batch), everywhere)

        preprocessing = Preprocessing.of(dataset, jnp.dtype(config.dtype))
        train_step = make_train_step(graph, sgd)
        batches = Batches(preprocessing, config.batch_size, self.steps_per_epoch)

        def make_chunk(length: int) -> Any:
            chunk = make_train_chunk(
                train_step,
                batches,
                length=length,
                batch_sharding=shares,
            )
            return jax.jit(chunk, donate_argnums=0, out_shardings=everywhere)

        evaluate = make_evaluate(
            evaluation_graph,
            preprocessing,
            batch_size=self._test_batch,
            batch_sharding=shares,
        )
        self._make_chunk = make_chunk
        self._evaluate: Any = jax.jit(evaluate, out_shardings=everywhere)
        self._chunks: dict[int, Any] = {}

    def dispatch_length(self, step: int) -> int:
        """Updates in the dispatch that begins at ``step``."""
        return min(self.steps_per_dispatch, self.steps_per_epoch - step % self.steps_per_epoch)

    def is_compiled(self, length: int) -> bool:
        """Whether :meth:`advance` by so many updates will start at once."""
        return length in self._chunks

    def compile_chunk(self, length: int) -> None:
        """Compile ``length`` updates in one dispatch."""
        arguments = (self.state, self._key, *self._train_data)
        self._chunks[length] = compile_ahead(self._make_chunk(length), *arguments)

    def compile_evaluation(self) -> None:
        """Compile the evaluation of one batch."""
        start = np.int32(0)
        self._evaluate = compile_ahead(
            self._evaluate, self.state.params, self.state.model_state, *self._test_data, start
        )

    def advance(self, length: int) -> tuple[np.ndarray, int, bool]:
        """Make ``length`` updates.

        Returns:
            The loss before each update, how many training pictures were classified correctly, and
            whether the parameters are all finite numbers now.
        """
        self.state, metrics = self._chunks[length](self.state, self._key, *self._train_data)
        metrics = jax.device_get(metrics)
        return metrics["loss"], int(metrics["correct"].sum()), bool(metrics["finite"])

    def evaluate(self, report: Callable[[int, int], None]) -> tuple[float, float]:
        """Evaluate on the whole test set.

        Args:
            report: is called after each batch with the pictures done and all there are. What it
              raises ends the evaluation.

        Returns:
            Mean cross-entropy and accuracy (0 to 1).
        """
        loss, correct = 0.0, 0
        for start in range(0, self.tests, self._test_batch):
            metrics = jax.device_get(
                self._evaluate(
                    self.state.params, self.state.model_state, *self._test_data, np.int32(start)
                )
            )
            loss += float(metrics["loss"])
            correct += int(metrics["correct"])
            report(min(start + self._test_batch, self.tests), self.tests)
        return loss / self.tests, correct / self.tests


def steps_per_epoch(config: Config, dataset: Dataset) -> int:
    """Whole batches in the training set.

    Raises:
        ValueError: there is none, or a batch can't be split evenly over the devices.
    """
    pictures, devices, batch = len(dataset.train_images), jax.device_count(), config.batch_size
    if batch > pictures:
        raise ValueError(
            f"--batch-size {batch} is more than the {pictures:,} training pictures of "
            f"{config.dataset}"
        )
    if batch % devices:
        raise ValueError(
            f"--batch-size {batch} can't be split evenly over {devices} devices; "
            f"the next that can is {batch + -batch % devices}"
        )
    return pictures // batch


def choose_steps_per_dispatch(steps: int) -> int:
    """Choose how many of an epoch's ``steps`` run in one dispatch.

    Many on an accelerator, which else would wait for the host; few on a CPU, where the end of a
    dispatch is the next chance to report and to stop, but more than one, since each takes its
    memory from the system anew. A divisor of the epoch's steps saves compiling a second, shorter
    dispatch for the epoch's end, which is not worth it if the epoch is short.
    """
    on_cpu = jax.default_backend() == "cpu"
    most, least = (5, 4) if on_cpu else (32, 8)
    divisor = max(n for n in range(1, most + 1) if steps % n == 0)
    is_short = on_cpu and steps < 200
    return divisor if divisor >= least or is_short else min(most, steps)


def _padded(dataset: Dataset, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The test set, filled up to whole batches with rows that bear the label -1."""
    extra = -len(dataset.test_images) % batch
    images = np.pad(dataset.test_images, ((0, extra), (0, 0), (0, 0), (0, 0)))
    return images, np.pad(dataset.test_labels, (0, extra), constant_values=-1)
