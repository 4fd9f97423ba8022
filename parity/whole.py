"""The network as it is used: compiled as one program, with nobody between its layers.

``parity.record`` watches every layer, and so sees neither blocks that are run as a loop
(``flaxnets.repetition``) nor layers of a dense block that share one array (``flaxnets.dense_run``).
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from parity.budget import DType, relative_error
from parity.comparison import Comparison, backward_order, smallest_scales
from parity.execution import Split, full_precision, gradients, quick_compilation
from parity.judge import Judge
from parity.naming import Rename, torch_arrays
from parity.record import REFUSALS, Batches, Trace, flat_state

CHECK = "whole network"


def compare_whole(
    judge: Judge,
    model: nnx.Module,
    batches: Batches,
    rename: Rename,
    finish: Callable[[np.ndarray], np.ndarray],
    oracle: Trace,
    references: Sequence[Trace] = (),
) -> list[Comparison]:
    """Compare logits and running statistics, in float64 also the loss and parameters' gradients.

    In float32 rounding puts a ReLU's input on the other side of its kink now and then, and where it
    does that cannot be seen from outside: gradients are left to the runs that are watched.

    Args:
        judge: tells network, dtype and mode.
        model: the Flax network; it is not changed.
        batches: what the oracle read.
        rename: dotted Flax names to PyTorch's.
        finish: what the PyTorch network does to its logits.
        oracle: float64 PyTorch.
        references: PyTorch's own runs in float32, if that is the dtype.
    """
    dtype: DType = judge.dtype  # type: ignore[assignment]
    try:
        run = _record(model, batches, rename, dtype=dtype, training=judge.mode == "train")
    except REFUSALS as error:
        reason = str(error).strip().partition("\n")[0]
        return [judge.failure(CHECK, "", f"{type(error).__name__}: {reason}")]
    compare = partial(judge.compare, CHECK)
    logits = finish(run.logits)
    own = [relative_error(reference.logits, oracle.logits) for reference in references]
    found = [compare("", logits, oracle.logits, own, note="logits")]
    if not references:
        found.append(compare("", run.loss, oracle.loss, [], note="loss"))
    scales = smallest_scales(oracle.parameter_gradients)
    for key in backward_order(run.parameter_gradients, oracle.layers):
        if key in scales:
            value, expected = run.parameter_gradients[key], oracle.parameter_gradients[key]
            found.append(
                compare(key, value, expected, [], backward=True, scale=scales[key], note="gradient")
            )
    for key, statistic in oracle.statistics.items():
        if key in run.statistics:
            own = [relative_error(each.statistics[key], statistic) for each in references]
            found.append(compare(key, run.statistics[key], statistic, own, note="statistic"))
    return found


def _record(
    model: nnx.Module, batches: Batches, rename: Rename, *, dtype: DType, training: bool
) -> Trace:
    """Run a Flax network; in float32 without its gradients."""
    backward = dtype == "float64"
    with full_precision(dtype), quick_compilation(backward):
        images, labels = jnp.asarray(batches.images, dtype), jnp.asarray(batches.labels)
        graphdef, parameters, rest = Split.of(model)
        run = partial(_run, graphdef, training, backward, parameters)
        loss, logits, rest, found = run(rest, images[0], labels[0])
        for later in range(1, len(images)):
            rest = run(rest, images[later], labels[later])[2]
        statistics = nnx.filter_state(rest, nnx.BatchStat)
        return Trace(
            layers={},
            logits=np.asarray(logits),
            loss=np.asarray(loss),
            parameter_gradients=torch_arrays(flat_state(found), rename) if backward else {},
            input_gradient=np.zeros(0),
            statistics=torch_arrays(flat_state(statistics), rename),
        )


@partial(jax.jit, static_argnums=(0, 1, 2))
def _run(
    graphdef: nnx.GraphDef,
    training: bool,
    backward: bool,
    parameters: Any,
    rest: Any,
    images: jax.Array,
    labels: jax.Array,
) -> Any:
    split = Split(graphdef, parameters, rest)
    found = gradients(split, images, labels, training=training, handler=None)
    loss, logits, rest, of_parameters, _ = found
    return loss, logits, rest, of_parameters if backward else None
