"""The side of plain Flax: the usual layers, ``jax.jit`` and optax, one dispatch for each step."""

from typing import Any

import jax
import numpy as np
import optax
from flax import nnx

from benchmarks import data, jax_common, plain_flax
from benchmarks.task import Task
from flaxnets.convolution import plain_conv2d


def _network(task: Task) -> nnx.Module:
    jax_common.prepare_device(task)
    model = plain_flax.build(
        jax_common.network_config(task), rngs=nnx.Rngs(0), dtype=jax_common.compute_dtype(task)
    )
    if task.work != "compile":  # which is measured with the network's own first weights
        jax_common.set_weights(model)
    return model


def _images(task: Task) -> tuple[list[jax.Array], list[jax.Array]]:
    images, labels = data.batches(task)
    return jax.device_put((list(images.astype(jax_common.compute_dtype(task))), list(labels)))


class Training:
    """Training steps on pictures that lie on the device."""

    def __init__(self, task: Task) -> None:
        model = _network(task)
        model.train()
        graph, params, *(rest,) = nnx.split(model, nnx.Param, ...)
        self._params, self._rest = params, rest
        options = dict(task.sgd)
        optimizer = optax.chain(
            optax.add_decayed_weights(options.pop("weight_decay")),
            optax.sgd(options.pop("lr"), **options),
        )
        self._opt_state = optimizer.init(self._params)
        self._images, self._labels = _images(task)

        def step(params: Any, rest: Any, opt_state: Any, images: Any, labels: Any) -> Any:
            def loss_of(params: Any) -> Any:
                model = nnx.merge(graph, params, rest, copy=True)
                logits = model(images).astype(jax.numpy.float32)
                loss = optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean()
                return loss, nnx.state(model, nnx.Not(nnx.Param))

            (loss, new_rest), gradients = jax.value_and_grad(loss_of, has_aux=True)(params)
            updates, opt_state = optimizer.update(gradients, opt_state, params)
            return optax.apply_updates(params, updates), new_rest, opt_state, loss

        self._step: Any = jax.jit(step, donate_argnums=(0, 1, 2))

    def advance(self, steps: int) -> list[float]:
        """Make so many updates; the loss before each."""
        losses = []
        for number in range(steps):
            self._params, self._rest, self._opt_state, loss = self._step(
                self._params,
                self._rest,
                self._opt_state,
                self._images[number % data.BATCHES],
                self._labels[number % data.BATCHES],
            )
            losses.append(loss)
        return [float(loss) for loss in jax.device_get(losses)]

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies by PyTorch's names and in its layout."""
        return jax_common.parameters(self._params)


class Inference:
    """The forward pass in evaluation mode."""

    def __init__(self, task: Task) -> None:
        model = _network(task)
        model.eval()
        graph, self._state = nnx.split(model)
        self._images, _ = _images(task)
        self._forward: Any = jax.jit(lambda state, x: nnx.merge(graph, state, copy=True)(x))

    def advance(self, steps: int) -> list[jax.Array]:
        """So many batches, one after the other; the logits of each."""
        return [
            jax.block_until_ready(self._forward(self._state, self._images[step % data.BATCHES]))
            for step in range(steps)
        ]


class Convolutions(jax_common.Convolutions):
    """The passes of convolutions as XLA computes them."""

    def __init__(self, task: Task) -> None:
        jax_common.prepare_device(task)
        super().__init__(task, plain_conv2d)
