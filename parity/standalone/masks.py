"""What dropout's masks are like: how much is dropped, and whether draws know of one another.

The network is trained for some steps; before each its masks are drawn from the state as the step
will draw them. All bounds are in standard deviations of what independent draws would give. A
number beyond ``DEVIATIONS`` comes up once in some hundred million draws, so that a check of some
hundred numbers passes with every seed.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets import registry
from flaxnets.intercept import Path, intercepted
from flaxnets.registry import Config
from parity.comparison import Comparison
from parity.execution import quick_compilation
from parity.naming import torch_key, unchanged
from parity.standalone.findings import Recorder
from parity.weights import random_batches
from train.optimizer import sgd
from train.step import TrainState, make_train_step, split

DEVIATIONS = 6.0
STEPS, BATCH, HEIGHT, WIDTH = 16, 8, 8, 12

Shapes = Mapping[Path, tuple[int, ...]]


def check_masks(recorder: Recorder, config: Config, seed: int) -> Iterator[Comparison]:
    """Look at the masks of a network with dropout, in the steps of a training run.

    Args:
        recorder: of the records.
        config: the network's.
        seed: of its weights and streams.
    """
    rate = config.dropout  # type: ignore[union-attr]
    # Dropped is 1: standardised to mean 0 and variance 1 if the rate is right.
    masks = {
        name: (np.where(kept, 0.0, 1.0) - rate) / np.sqrt(rate * (1 - rate))
        for name, kept in drawn_masks(config, seed).items()
    }
    for name, mask in masks.items():
        yield from of_layer(recorder, name, mask, rate)
    pairs = {
        f"{a} and {b}": correlation(*in_common(masks[a], masks[b]))
        for a, b in itertools.combinations(masks, 2)
    }
    if not pairs:
        return
    worst = max(pairs, key=lambda pair: abs(pairs[pair]))
    yield _number(recorder, "layers", pairs[worst], f"of {len(pairs)} pairs, {worst}")


def of_layer(recorder: Recorder, name: str, mask: np.ndarray, rate: float) -> Iterator[Comparison]:
    """A layer's rate, and how its draws are correlated.

    Args:
        recorder: of the records.
        name: the layer's.
        mask: (steps, N, H, W, C), standardised.
        rate: of dropout.
    """
    dropped = float(mask.mean() * np.sqrt(rate * (1 - rate)) + rate)
    deviation = float(mask.sum() / np.sqrt(mask.size))
    note = f"{dropped:.4f} of {mask.size:,} are dropped, {rate:g} expected"
    yield _number(recorder, f"{name}, rate", deviation, note)

    # Were some places dropped more often than others, in all steps, their sums would vary more.
    sums = np.square(mask.sum(0)) / len(mask)
    excess_kurtosis = 1 / (rate * (1 - rate)) - 6
    spread = np.sqrt((2 + excess_kurtosis / len(mask)) / sums.size)
    note = "of the variance between places, over the steps"
    yield _number(recorder, f"{name}, places", float((sums.mean() - 1) / spread), note)

    for axis, neighbours in enumerate(("pictures", "rows", "columns", "channels"), start=1):
        if mask.shape[axis] > 1:
            deviation = neighbour_correlation(mask, axis)
            yield _number(recorder, f"{name}, {neighbours}", deviation, "of neighbours")
    lags = {lag: correlation(mask[lag:], mask[:-lag]) for lag in range(1, len(mask))}
    worst = max(lags, key=lambda lag: abs(lags[lag]))
    yield _number(recorder, f"{name}, steps", lags[worst], f"of masks {worst} steps apart")


def drawn_masks(config: Config, seed: int) -> dict[str, np.ndarray]:
    """What each dropout layer keeps in the first steps of training.

    Returns:
        Bool, (steps, N, H, W, C), by name; those of one channel's mean are (steps, N, C).
    """
    model: Any = registry.build(config, rngs=nnx.Rngs(seed))
    optimizer = sgd(0.01)
    graph, _, state = split(model, optimizer)
    batches = random_batches(
        count=STEPS,
        size=BATCH,
        height=HEIGHT,
        width=WIDTH,
        classes=config.num_classes,
        seed=seed,
    )
    shapes = dropout_shapes(graph, state, batches.images[0])

    @jax.jit
    def draw(state: TrainState) -> dict[str, jax.Array]:
        network = nnx.merge(graph, state.params, state.model_state, copy=True)
        layers = dict(nnx.iter_modules(network))
        return {
            torch_key(path, unchanged): layers[path](jnp.ones(shape)) != 0
            for path, shape in shapes.items()
        }

    step = jax.jit(make_train_step(graph, optimizer))
    drawn = []
    with quick_compilation():
        for images, labels in zip(batches.images, batches.labels, strict=True):
            drawn.append(draw(state))
            state, _ = step(state, jnp.asarray(images, jnp.float32), jnp.asarray(labels, jnp.int32))
    return {name: np.stack([masks[name] for masks in drawn]) for name in drawn[0]}


def dropout_shapes(graph: Any, state: TrainState, images: np.ndarray) -> Shapes:
    """The shape of what each dropout layer reads, by its path."""
    shapes: dict[Path, tuple[int, ...]] = {}

    def keep(path: Path, module: nnx.Module, call: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(module, nnx.Dropout):
            shapes[path] = args[0].shape
        return call(*args, **kwargs)

    def run(state: TrainState, images: jax.Array) -> jax.Array:
        network: Any = nnx.merge(graph, state.params, state.model_state, copy=True)
        with intercepted(network, keep):
            return network(images)

    jax.eval_shape(run, state, jax.ShapeDtypeStruct(images.shape, jnp.float32))
    return shapes


def correlation(a: np.ndarray, b: np.ndarray) -> float:
    """The mean of a product of standardised masks, in its standard deviations."""
    return float((a * b).sum() / np.sqrt(a.size))


def neighbour_correlation(mask: np.ndarray, axis: int) -> float:
    """The same of a mask and itself, moved by one along ``axis``."""
    length = mask.shape[axis]
    return correlation(
        np.take(mask, range(1, length), axis), np.take(mask, range(length - 1), axis)
    )


def in_common(a: np.ndarray, b: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of each step the first elements, as many as both have: one key draws the same for both."""
    flat = a.reshape(len(a), -1), b.reshape(len(b), -1)
    length = min(flat[0].shape[1], flat[1].shape[1])
    return flat[0][:, :length], flat[1][:, :length]


def _number(recorder: Recorder, layer: str, deviation: float, note: str) -> Comparison:
    return recorder.number(layer, abs(deviation), DEVIATIONS, f"standard deviations {note}")
