"""One run of a Flax network that is compiled whole, as it is when people use it.

``parity.record`` compiles layer by layer, and leaves dropout out; here both are as in training.
"""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from flaxnets.intercept import Path, intercepted
from flaxnets.layers import FeatureMaps
from parity.budget import DType
from parity.checks import RECORDED, Pair
from parity.execution import Split, full_precision
from parity.naming import torch_arrays, torch_key, unchanged
from parity.record import Batches, Trace, call_name, flat_state
from train.step import cross_entropy

COMPILED_CHECKS = RECORDED - {"isolated layers", "layer gradients", "whole network"}


class CompiledPair(Pair):
    """A pair whose Flax network is compiled whole."""

    def run_flax(
        self, model: nnx.Module, batches: Batches, *, dtype: DType, training: bool
    ) -> Trace:
        """Record a run of the network as one program."""
        return record_compiled(model, batches, dtype=dtype, training=training)


def record_compiled(
    model: nnx.Module, batches: Batches, *, dtype: str, training: bool, compiled: bool = True
) -> Trace:
    """Run a Flax network, in training mode with its own dropout or in evaluation mode.

    Args:
        model: takes (N, H, W, C) to (N, classes); it is not changed.
        batches: the inputs.
        dtype: of the images.
        training: else evaluation mode.
        compiled: else every operation runs by itself.

    Returns:
        The run, without gradients of layers. The arrays keep the dtypes that they were computed in.
    """
    model = nnx.clone(model)
    (model.train if training else model.eval)()

    def run(parameters: Any, rest: Any, images: jax.Array, labels: jax.Array) -> Any:
        def loss_of(parameters: Any, images: jax.Array) -> Any:
            network = nnx.merge(split.graphdef, parameters, rest, copy=True)
            layers: dict[str, jax.Array] = {}

            def keep(path: Path, module: Any, call: Any, *args: Any, **kwargs: Any) -> Any:
                output = call(*args, **kwargs)
                name = call_name(layers, torch_key(path, unchanged))
                layers[name] = output.values if isinstance(output, FeatureMaps) else output
                return output

            with intercepted(network, keep):
                logits = network(images)
            rest_after = nnx.state(network, nnx.Not(nnx.Param))
            return cross_entropy(logits, labels).mean(), (layers, logits, rest_after)

        return jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(parameters, images)

    with full_precision(dtype):
        split = Split.of(model)
        images, labels = jnp.asarray(batches.images, dtype), jnp.asarray(batches.labels)
        run_batch = jax.jit(run) if compiled else run
        first, gradients = run_batch(split.parameters, split.rest, images[0], labels[0])
        loss, (layers, logits, rest) = first
        of_parameters, of_images = gradients
        for later in range(1, len(images)):
            (_, (_, _, rest)), _ = run_batch(split.parameters, rest, images[later], labels[later])
        statistics = nnx.filter_state(rest, nnx.BatchStat)
        return Trace(
            layers={name: np.asarray(output) for name, output in layers.items()},
            logits=np.asarray(logits),
            loss=np.asarray(loss),
            parameter_gradients=torch_arrays(flat_state(of_parameters), unchanged),
            input_gradient=np.asarray(of_images),
            statistics=torch_arrays(flat_state(statistics), unchanged),
        )
