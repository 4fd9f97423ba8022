"""Stochastic gradient descent with PyTorch's meaning of every option."""

import jax
import numpy as np
import optax


def sgd(
    learning_rate: optax.ScalarOrSchedule,
    *,
    momentum: float = 0.0,
    nesterov: bool = False,
    weight_decay: float = 0.0,
) -> optax.GradientTransformation:
    """Return SGD equal to ``torch.optim.SGD`` (dampening 0) on every parameter it is given.

    With gradient ``g``, parameter ``p``, momentum buffer ``b`` (zero at first) and learning rate
    ``lr``, one step is::

        g = g + weight_decay * p            # every parameter, batch norm and biases included
        b = momentum * b + g                # the first step therefore leaves b = g
        p = p - lr * (g + momentum * b)     # Nesterov
        p = p - lr * b                      # otherwise

    The learning rate multiplies after the buffer, so a schedule's drop acts on the whole buffer at
    once, as in PyTorch (and unlike Sutskever's form, which keeps the old rate inside the buffer).

    Args:
        learning_rate: a number, or a function of the step (int32 scalar, 0 for the first update).
        momentum: the factor on the old buffer, in [0, 1).
        nesterov: look ahead by one step; needs a momentum.
        weight_decay: L2 penalty's factor, added to the gradient before the momentum.

    Returns:
        An optax transformation whose state is a plain pytree of arrays: the momentum buffers in the
        parameters' dtype and, where the rate is a schedule, the int32 count of updates.

    Raises:
        ValueError: a negative value, momentum of 1 or more, or Nesterov without momentum.
    """
    if not 0 <= momentum < 1:
        raise ValueError(f"momentum must be at least 0 and below 1, got {momentum}")
    if weight_decay < 0:
        raise ValueError(f"weight_decay must not be negative, got {weight_decay}")
    if not callable(learning_rate) and learning_rate < 0:
        raise ValueError(f"learning_rate must not be negative, got {learning_rate}")
    if nesterov and momentum == 0:
        raise ValueError("nesterov needs a momentum above 0, got momentum 0")
    parts = [optax.add_decayed_weights(weight_decay)]
    if momentum > 0:
        parts.append(optax.trace(decay=momentum, nesterov=nesterov))
    parts.append(optax.scale_by_learning_rate(learning_rate))
    chain = optax.chain(*parts)

    def init(params: optax.Params) -> optax.OptState:
        # All zeros, made without compiling anything: a jnp.zeros does once for every shape.
        shapes = jax.eval_shape(chain.init, params)
        return jax.device_put(jax.tree.map(lambda x: np.zeros(x.shape, x.dtype), shapes))

    return optax.GradientTransformation(init, chain.update)
