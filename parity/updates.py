"""Both networks make a few updates by SGD, and are compared after each of them.

One step's gradients can be right and the next one's wrong: when momentum is kept otherwise, when a
learning rate is one step late, when running statistics or parameters are not carried over.
"""

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
import torch.nn.functional as F
from flax import nnx

from parity.comparison import Comparison, smallest_scales
from parity.execution import Split, comparable, gradients
from parity.judge import Judge
from parity.naming import Rename, torch_arrays
from parity.record import Batches, channels_first, flat_state, set_mode
from train.optimizer import sgd

CHECK = "updates"
MOMENTUM, WEIGHT_DECAY = 0.9, 5e-4
# By how much of itself the first update changes a network; the rate is then lowered. Rounding grows
# with every update, and in a deep network after a large one a thousandfold.
CHANGE, LATER = 1e-3, 0.2


class Snapshot(NamedTuple):
    """A network after an update; all by state-dict key.

    Attributes:
        parameters: their new values.
        momentum: the optimizer's buffers.
        statistics: batch norm's running mean, variance and batch count.
    """

    parameters: Mapping[str, np.ndarray]
    momentum: Mapping[str, np.ndarray]
    statistics: Mapping[str, np.ndarray]


def compare_updates(
    judge: Judge, module: torch.nn.Module, model: nnx.Module, batches: Batches, rename: Rename
) -> list[Comparison]:
    """Make an update on each batch, in float64 and training mode, and compare after each.

    Of every kind of array (parameters, momentum, statistics) the one nearest its budget is kept.

    Args:
        judge: tells the network.
        module: PyTorch's, in float64; it is not changed.
        model: Flax's, likewise.
        batches: one a step.
        rename: dotted Flax names to PyTorch's.
    """
    found = []
    with comparable(model, "float64"):
        rates = choose_rates(module, batches)
        sides = zip(
            train_torch(module, batches, rates),
            train_flax(model, batches, rates, rename),
            strict=True,
        )
        for step, (expected, snapshot) in enumerate(sides, start=1):
            for kind in Snapshot._fields:
                place = f"{kind} after step {step}: "
                arrays, oracle = getattr(snapshot, kind), getattr(expected, kind)
                # A buffer can be zero but for rounding, as the gradient of its parameter is.
                scales = {} if kind == "statistics" else smallest_scales(oracle)
                compared = [
                    judge.compare(
                        CHECK,
                        place + key,
                        arrays[key],
                        value,
                        [],
                        backward=True,
                        scale=scales.get(key, 0.0),
                    )
                    for key, value in oracle.items()
                    if key in arrays
                ]
                found += sorted(compared, key=lambda comparison: comparison.ratio)[-1:]
    return found


def choose_rates(module: torch.nn.Module, batches: Batches) -> tuple[float, ...]:
    """Learning rates of the first update, and of all others, by the first batch's gradients."""
    parameters = list(module.parameters())
    with set_mode(module, training=True):
        loss = _loss(module, batches.images[0], batches.labels[0])
        gradients = torch.autograd.grad(loss, parameters, materialize_grads=True)
    first = CHANGE * _length(parameters) / _length(gradients)
    return first, LATER * first


def _length(tensors: Iterable[torch.Tensor]) -> float:
    """Euclidean, of all tensors together."""
    return sum(float(tensor.detach().square().sum()) for tensor in tensors) ** 0.5


def _loss(module: torch.nn.Module, images: np.ndarray, labels: np.ndarray) -> torch.Tensor:
    like = next(module.parameters())
    return F.cross_entropy(
        module(channels_first(images, like)), torch.tensor(labels, device=like.device)
    )


def train_torch(
    module: torch.nn.Module, batches: Batches, rates: Sequence[float]
) -> Iterator[Snapshot]:
    """Train a copy of a PyTorch module, in training mode with every dropout rate 0.

    The last of the rates is that of all further updates. Each snapshot shows the copy itself, and
    is good until the next update.
    """
    module = copy.deepcopy(module)
    named = dict(module.named_parameters())
    optimizer = torch.optim.SGD(
        named.values(), momentum=MOMENTUM, weight_decay=WEIGHT_DECAY, nesterov=True, foreach=False
    )
    with set_mode(module, training=True, keep_buffers=True):
        for step, (images, labels) in enumerate(zip(batches.images, batches.labels, strict=True)):
            loss = _loss(module, images, labels)
            optimizer.zero_grad()
            loss.backward()
            for value in named.values():
                if value.grad is None:
                    value.grad = torch.zeros_like(value)  # as Flax has it
            for group in optimizer.param_groups:
                group["lr"] = rates[min(step, len(rates) - 1)]
            optimizer.step()
            yield Snapshot(
                parameters={key: value.numpy(force=True) for key, value in named.items()},
                momentum={
                    key: optimizer.state[value]["momentum_buffer"].numpy(force=True)
                    for key, value in named.items()
                },
                statistics={key: value.numpy(force=True) for key, value in module.named_buffers()},
            )


def train_flax(
    model: nnx.Module, batches: Batches, rates: Sequence[float], rename: Rename
) -> Iterator[Snapshot]:
    """Train a Flax module likewise; it is not changed. To be run in ``comparable``."""
    split = Split.of(model)
    values, structure = jax.tree.flatten(split.parameters)
    schedule = jnp.asarray(rates)
    buffers = [_optimizer(schedule).init(_padded(value)) for value in values]
    for images, labels in zip(jnp.asarray(batches.images), batches.labels, strict=True):
        _, _, rest, of_parameters, _ = gradients(split, images, jnp.asarray(labels), training=True)
        for index, gradient in enumerate(jax.tree.leaves(of_parameters)):
            value, buffers[index] = _update(
                schedule, _padded(values[index]), _padded(gradient), buffers[index]
            )
            values[index] = _like(value, gradient)
        split = Split(split.graphdef, jax.tree.unflatten(structure, values), rest)
        momentum = [
            _like(optax.tree.get(buffer, "trace"), value)
            for buffer, value in zip(buffers, values, strict=True)
        ]
        statistics = nnx.filter_state(rest, nnx.BatchStat)
        states = split.parameters, jax.tree.unflatten(structure, momentum), statistics
        yield Snapshot(*(torch_arrays(flat_state(state), rename) for state in states))


def _rate(rates: jax.Array, step: jax.typing.ArrayLike) -> jax.Array:
    return jnp.take(rates, step, mode="clip")


def _optimizer(rates: jax.Array) -> optax.GradientTransformation:
    return sgd(
        lambda step: _rate(rates, step),
        momentum=MOMENTUM,
        nesterov=True,
        weight_decay=WEIGHT_DECAY,
    )


@jax.jit
def _update(
    rates: jax.Array, value: jax.Array, gradient: jax.Array, state: Any
) -> tuple[jax.Array, Any]:
    changes, state = _optimizer(rates).update(gradient, state, value)
    return optax.apply_updates(value, changes), state


LARGE = 2**18


def _padded(array: jax.Array) -> jax.Array:
    """Flat, and unless it is large as long as a power of two: SGD is then compiled for a few sizes,
    not for every shape.
    """
    flat = np.ravel(array)
    extra = 0 if flat.size >= LARGE else (1 << (flat.size - 1).bit_length()) - flat.size
    return jnp.asarray(np.pad(flat, (0, extra)) if extra else flat)


def _like(padded: jax.Array, array: jax.Array) -> jax.Array:
    return jnp.asarray(np.asarray(padded)[: array.size].reshape(array.shape))
