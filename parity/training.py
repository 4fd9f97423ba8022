"""Train's step, and PyTorch's, on the same network and batches, seen after every update.

The Flax side is ``train.step``'s own step with ``train.optimizer``'s SGD and ``train.schedule``'s
learning rates, compiled as in training. The PyTorch side is ``torch.optim.SGD`` under a scheduler
of ``torch.optim.lr_scheduler``: it takes nothing from the Flax side but the recipe's numbers.
"""

import copy
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from flax import nnx
from torch.optim import lr_scheduler

from parity.libraries import Way, computing
from parity.naming import torch_arrays, unchanged
from train.optimizer import sgd
from train.recipes import Config
from train.schedule import Schedule
from train.step import Metrics, TrainState, make_train_step, split

Arrays = dict[str, np.ndarray]
Batch = tuple[np.ndarray, np.ndarray]  # pictures (N, H, W, C), labels (N,)


class Snapshot(NamedTuple):
    """What an update did, each kind by PyTorch's key and in its layout; causes before effects.

    Attributes:
        learning_rate: of the update, under "".
        loss: mean cross-entropy before the update, under "".
        statistics: running means and variances, and batch counts.
        gradients: of the loss, without weight decay.
        momentum: the buffers after the update; empty without momentum.
        parameters: after the update.
    """

    learning_rate: Arrays
    loss: Arrays
    statistics: Arrays
    gradients: Arrays
    momentum: Arrays
    parameters: Arrays


class FlaxTrainer:
    """Trains a Flax network again and again from the same weights, compiled once.

    The compiled step holds all the schedules and optimizers, and each run says which it uses; with
    one of each it is the step that training compiles, and its gradients as an output besides.

    Args:
        model: a network without dropout.
        schedules: learning rates as functions of the step.
        options: keywords of ``train.optimizer.sgd``.
    """

    def __init__(
        self,
        model: nnx.Module,
        schedules: Sequence[Schedule],
        options: Sequence[dict[str, Any]],
    ) -> None:
        def optimizer(schedule: Any, option: Any) -> optax.GradientTransformation:
            def rates(count: jax.typing.ArrayLike) -> jax.Array:
                return jax.lax.switch(schedule, schedules, count)

            return _observed([sgd(rates, **each) for each in options], option, rates)

        def step(
            schedule: jax.Array,
            option: jax.Array,
            state: TrainState,
            images: jax.Array,
            labels: jax.Array,
        ) -> tuple[TrainState, Metrics]:
            train_step = make_train_step(graph, optimizer(schedule, option))
            return train_step(state, images, labels)

        graph, _, self._initial = split(model, optimizer(0, 0))
        self._step = jax.jit(step, donate_argnums=2)

    def run(
        self, batches: Iterable[Batch], *, schedule: int = 0, option: int = 0
    ) -> Iterator[Snapshot]:
        """Make an update for every batch, by the schedule and options of these numbers."""
        state = jax.tree.map(jnp.copy, self._initial)
        for images, labels in batches:
            state, metrics = self._step(
                np.int32(schedule), np.int32(option), state, images, np.asarray(labels, np.int32)
            )
            seen: _Observed = state.opt_state
            momentum = optax.tree.get(seen.states[option], "trace", nnx.State({}))
            yield Snapshot(
                {"": np.asarray(seen.learning_rate)},
                {"": np.asarray(metrics["loss"])},
                _arrays(nnx.filter_state(state.model_state, nnx.BatchStat)),
                _arrays(seen.gradients),
                _arrays(momentum),
                _arrays(state.params),
            )


def run_torch(
    module: torch.nn.Module,
    config: Config,
    epoch: int,
    batches: Iterable[Batch],
    *,
    library: bool = True,
) -> Iterator[Snapshot]:
    """Make an update of a copy of ``module``, in its dtype, for every batch.

    Args:
        module: a network without dropout.
        config: the optimizer's and the schedule's numbers.
        epoch: updates in one epoch.
        batches: as the Flax side's; cast to the module's dtype.
        library: with oneDNN (cuDNN on a GPU), or with PyTorch's own loops.
    """
    module = copy.deepcopy(module).train()
    parameters = dict(module.named_parameters())
    dtype = next(iter(parameters.values())).dtype
    optimizer = torch.optim.SGD(
        module.parameters(), lr=config.learning_rate, **optimizer_options(config)
    )
    scheduler = torch_scheduler(optimizer, config, epoch)
    for images, labels in batches:
        pictures = torch.tensor(np.moveaxis(images, -1, 1), dtype=dtype)
        with computing(Way(library, channels_last=True)):
            logits = module(pictures)
            loss = torch.nn.functional.cross_entropy(logits, torch.tensor(labels, dtype=torch.long))
            optimizer.zero_grad()
            loss.backward()
        gradients = _copies({key: each.grad for key, each in parameters.items()})
        rate = optimizer.param_groups[0]["lr"]
        optimizer.step()
        scheduler.step()
        buffers = {
            key: optimizer.state[each]["momentum_buffer"]
            for key, each in parameters.items()
            if config.momentum
        }
        yield Snapshot(
            {"": np.asarray(rate)},
            _copies({"": loss}),
            _copies(dict(module.named_buffers())),
            gradients,
            _copies(buffers),
            _copies(parameters),
        )


def optimizer_options(config: Config) -> dict[str, Any]:
    """The keywords that ``train.optimizer.sgd`` and ``torch.optim.SGD`` share."""
    return {name: getattr(config, name) for name in ("momentum", "nesterov", "weight_decay")}


def torch_scheduler(
    optimizer: torch.optim.Optimizer, config: Config, epoch: int
) -> lr_scheduler.LRScheduler:
    """PyTorch's scheduler of a recipe, to be stepped after every update; ``epoch`` updates long.

    Raises:
        ValueError: there is none of the recipe's schedule.
    """
    scheduler: lr_scheduler.LRScheduler
    if config.schedule == "step":
        boundaries = [milestone * epoch for milestone in config.milestones]
        scheduler = lr_scheduler.MultiStepLR(optimizer, boundaries, gamma=config.decay_factor)
    elif config.schedule == "cosine":
        scheduler = lr_scheduler.CosineAnnealingLR(optimizer, config.epochs * epoch)
    elif config.schedule == "constant":
        scheduler = lr_scheduler.ConstantLR(optimizer, factor=1.0)
    else:
        raise ValueError(f"no scheduler of PyTorch's is known to be {config.schedule!r}")
    warm_up = round(config.warmup_epochs * epoch)
    if warm_up < 2:
        return scheduler
    linear = lr_scheduler.LinearLR(optimizer, start_factor=1 / warm_up, total_iters=warm_up - 1)
    return lr_scheduler.ChainedScheduler([linear, scheduler], optimizer)


class _Observed(NamedTuple):
    """An optimizer's state, and what its latest update was made of."""

    gradients: nnx.State
    learning_rate: jax.Array
    states: tuple[optax.OptState, ...]


def _observed(
    optimizers: Sequence[optax.GradientTransformation], chosen: Any, rates: Schedule
) -> optax.GradientTransformation:
    """The chosen one of several optimizers, whose state tells gradients and learning rate too."""

    def init(params: nnx.State) -> _Observed:
        states = tuple(each.init(params) for each in optimizers)
        return _Observed(jax.tree.map(jnp.zeros_like, params), jnp.zeros((), float), states)

    def update(
        gradients: nnx.State, state: _Observed, params: nnx.State | None = None
    ) -> tuple[optax.Updates, _Observed]:
        def branch(number: int) -> Any:
            def run(states: tuple[optax.OptState, ...]) -> Any:
                own = states[number]
                updates, new = optimizers[number].update(gradients, own, params)
                rate = rates(optax.tree.get(own, "count"))
                return updates, rate, (*states[:number], new, *states[number + 1 :])

            return run

        branches = [branch(number) for number in range(len(optimizers))]
        updates, rate, states = jax.lax.switch(chosen, branches, state.states)
        return updates, _Observed(gradients, rate, states)

    return optax.GradientTransformation(init, update)


def _arrays(state: nnx.State) -> Arrays:
    """Copies: the next update takes the buffers over."""
    flat = nnx.to_flat_state(state)
    values = [(path, leaf[...]) for path, leaf in zip(flat.paths, flat.leaves, strict=True)]
    return {key: value.copy() for key, value in torch_arrays(values, unchanged).items()}


def _copies(tensors: dict[str, Any]) -> Arrays:
    return {key: tensor.numpy(force=True).copy() for key, tensor in tensors.items()}
