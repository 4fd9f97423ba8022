"""One SGD step, several steps in one dispatch, and evaluation, as pure functions for ``jax.jit``.

The network is split into its graph and its arrays once; every function here takes the arrays and
returns new ones. Nothing depends on anything but its arguments: the pictures of step ``s``, their
crops and flips come from keys derived from the run's key and ``s``, dropout from a stream that is
part of the state. A run that is stopped and taken up again is therefore the run that was not.
"""

import dataclasses
from collections.abc import Callable
from typing import Self

import jax
import jax.numpy as jnp
import optax
from flax import nnx
from flax.typing import Dtype

from train import augment
from train.datasets import Dataset

Metrics = dict[str, jax.Array]


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
    """Everything that an update changes.

    Attributes:
        step: number of updates made so far, int32 scalar.
        params: the ``nnx.Param`` variables.
        model_state: all other variables: running statistics, and dropout's stream if it is used.
        opt_state: the optimizer's state.
    """

    step: jax.Array
    params: nnx.State
    model_state: nnx.State
    opt_state: optax.OptState


TrainStep = Callable[[TrainState, jax.Array, jax.Array], tuple[TrainState, Metrics]]
TrainChunk = Callable[[TrainState, jax.Array, jax.Array, jax.Array], tuple[TrainState, Metrics]]
Evaluate = Callable[[nnx.State, nnx.State, jax.Array, jax.Array, jax.Array], Metrics]


@dataclasses.dataclass(frozen=True)
class Preprocessing:
    """From uint8 pictures of shape (N, H, W, 3) to the network's input, inside the jitted step."""

    mean: tuple[float, ...]
    std: tuple[float, ...]
    crop_padding: int
    flip: bool
    dtype: Dtype = jnp.float32

    @classmethod
    def of(cls, dataset: Dataset, dtype: Dtype = jnp.float32) -> Self:
        """Take a dataset's own constants."""
        return cls(dataset.mean, dataset.std, dataset.crop_padding, dataset.flip, dtype)

    def train(self, key: jax.Array, images: jax.Array) -> jax.Array:
        """Crop and flip at random, then normalise."""
        offsets, flips = augment.random_offsets_and_flips(
            key, images.shape[0], self.crop_padding, flip=self.flip
        )
        images = augment.crop_and_flip(images, offsets, flips, self.crop_padding)
        return self.evaluate(images)

    def evaluate(self, images: jax.Array) -> jax.Array:
        """Normalise only."""
        return augment.normalize(images, self.mean, self.std, self.dtype)


def split(
    model: nnx.Module, optimizer: optax.GradientTransformation
) -> tuple[nnx.GraphDef, nnx.GraphDef, TrainState]:
    """Split a network into its graph in training mode, in evaluation mode, and the first state."""
    model.eval()
    evaluation_graph = nnx.graphdef(model)
    model.train()
    graph, params, *(model_state,) = nnx.split(model, nnx.Param, ...)
    state = TrainState(jnp.zeros((), jnp.int32), params, model_state, optimizer.init(params))
    return graph, evaluation_graph, state


def cross_entropy(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Softmax cross-entropy of each row, shape (N,), in float32 or wider."""
    logits = logits.astype(jnp.promote_types(logits.dtype, jnp.float32))
    return optax.losses.softmax_cross_entropy_with_integer_labels(logits, labels)


def _correct(logits: jax.Array, labels: jax.Array) -> jax.Array:
    return jnp.argmax(logits, axis=-1) == labels


def make_train_step(graph: nnx.GraphDef, optimizer: optax.GradientTransformation) -> TrainStep:
    """Return the pure function that makes one update.

    It takes the state, pictures (N, H, W, C) in a float dtype and labels (N,) int32, and returns
    the new state and ``{"loss": mean cross-entropy before the update, "correct": int32 count}``.
    """

    def train_step(
        state: TrainState, images: jax.Array, labels: jax.Array
    ) -> tuple[TrainState, Metrics]:
        def loss_of(params: nnx.State) -> tuple[jax.Array, tuple[nnx.State, jax.Array]]:
            model = nnx.merge(graph, params, state.model_state, copy=True)
            logits = model(images)
            model_state = nnx.state(model, nnx.Not(nnx.Param))
            return cross_entropy(logits, labels).mean(), (model_state, logits)

        (loss, (model_state, logits)), gradients = jax.value_and_grad(loss_of, has_aux=True)(
            state.params
        )
        updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics = {"loss": loss, "correct": _correct(logits, labels).sum(dtype=jnp.int32)}
        return TrainState(state.step + 1, params, model_state, opt_state), metrics

    return train_step


@dataclasses.dataclass(frozen=True)
class Batches:
    """Which pictures each step sees, and how they are cropped and flipped: a function of the key.

    Epoch ``e`` visits the pictures in the order ``permutation(fold_in(fold_in(key, 0), e))``, of
    which the first ``steps_per_epoch * batch_size`` are used: a last partial batch is dropped, and
    the next epoch's order decides anew which pictures that are. The crops and flips of step ``s``
    come from ``fold_in(fold_in(key, 1), s)``.
    """

    preprocessing: Preprocessing
    batch_size: int
    steps_per_epoch: int

    def order(self, key: jax.Array, step: jax.Array, pictures: int) -> jax.Array:
        """The order of all pictures, (pictures,) int32, in the epoch that ``step`` is in."""
        order_key = jax.random.fold_in(jax.random.fold_in(key, 0), step // self.steps_per_epoch)
        return jax.random.permutation(order_key, pictures)

    def indices(self, order: jax.Array, step: jax.Array) -> jax.Array:
        """Which pictures of its epoch's order a step sees, (batch_size,) int32."""
        start = (step % self.steps_per_epoch) * self.batch_size
        return jax.lax.dynamic_slice_in_dim(order, start, self.batch_size)

    def inputs(self, key: jax.Array, step: jax.Array, images: jax.Array) -> jax.Array:
        """A step's uint8 pictures (N, H, W, 3), cropped, flipped and normalised."""
        augment_key = jax.random.fold_in(jax.random.fold_in(key, 1), step)
        return self.preprocessing.train(augment_key, images)


def make_train_chunk(
    train_step: TrainStep,
    batches: Batches,
    *,
    length: int,
    batch_sharding: jax.sharding.Sharding | None = None,
) -> TrainChunk:
    """Return the pure function that makes ``length`` updates of one epoch in one dispatch.

    The function takes the state (whose step must leave ``length`` steps in the epoch), the run's
    key, all training pictures (M, H, W, 3) uint8 and labels (M,) int32, and returns the new state
    and ``{"loss": (length,), "correct": (length,) int32, "finite": bool}``, where ``finite`` says
    whether all parameters and running statistics are finite numbers after the last update.

    With a ``batch_sharding`` over several devices each computes its part of every batch. Batch
    statistics are those of the whole batch (PyTorch's SyncBatchNorm, where its
    DistributedDataParallel alone would keep one set per device).
    """

    def train_chunk(
        state: TrainState, key: jax.Array, images: jax.Array, labels: jax.Array
    ) -> tuple[TrainState, Metrics]:
        order = batches.order(key, state.step, images.shape[0])

        def one_step(state: TrainState, _: None) -> tuple[TrainState, Metrics]:
            indices = batches.indices(order, state.step)
            batch = images[indices], labels[indices]
            if batch_sharding is not None:
                batch = jax.lax.with_sharding_constraint(batch, batch_sharding)
            return train_step(state, batches.inputs(key, state.step, batch[0]), batch[1])

        state, metrics = jax.lax.scan(one_step, state, length=length)
        return state, metrics | {"finite": _all_finite((state.params, state.model_state))}

    return train_chunk


def _all_finite(tree: object) -> jax.Array:
    floats = [x for x in jax.tree.leaves(tree) if jnp.issubdtype(x.dtype, jnp.floating)]
    return jnp.stack([jnp.isfinite(x).all() for x in floats]).all()


def make_evaluate(
    evaluation_graph: nnx.GraphDef,
    preprocessing: Preprocessing,
    *,
    batch_size: int,
    batch_sharding: jax.sharding.Sharding | None = None,
) -> Evaluate:
    """Return the pure function that evaluates one batch of a test set that lies on the device.

    It takes the parameters, the other variables, all pictures (M, H, W, 3) uint8 and labels (M,)
    int32, where M is a multiple of the batch size, and the batch's first index. Rows whose label is
    negative are padding and don't count. It returns ``{"loss": sum of cross-entropies, "correct":
    int32 count}``.
    """

    def evaluate(
        params: nnx.State,
        model_state: nnx.State,
        images: jax.Array,
        labels: jax.Array,
        start: jax.Array,
    ) -> Metrics:
        batch = tuple(
            jax.lax.dynamic_slice_in_dim(array, start, batch_size) for array in (images, labels)
        )
        if batch_sharding is not None:
            batch = jax.lax.with_sharding_constraint(batch, batch_sharding)
        counted = batch[1] >= 0
        model = nnx.merge(evaluation_graph, params, model_state, copy=True)
        logits = model(preprocessing.evaluate(batch[0]))
        losses = cross_entropy(logits, jnp.maximum(batch[1], 0))
        return {
            "loss": jnp.where(counted, losses, 0).sum(),
            "correct": (_correct(logits, batch[1]) & counted).sum(dtype=jnp.int32),
        }

    return evaluate
