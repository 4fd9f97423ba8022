"""Every layer by itself: fed PyTorch's own input, and PyTorch's own gradient at its output.

Errors add up on their way through a network; here each layer starts from the same numbers on both
sides, so one that is out of budget is wrong itself.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from flax import nnx
from torch import nn

from flaxnets.layers import FeatureMaps, standardize
from parity.budget import relative_error
from parity.comparison import Comparison, smallest_scales
from parity.execution import Split, comparable, run_layer
from parity.judge import Judge
from parity.libraries import WAYS, computing
from parity.naming import Rename, torch_arrays
from parity.record import (
    REFUSALS,
    LayerCall,
    Trace,
    channels_first,
    channels_last,
    flat_state,
    set_mode,
)

CHECK = "isolated layers"

_standardize = jax.jit(standardize)


@dataclasses.dataclass(frozen=True)
class LayerRun:
    """What a layer makes of an input, and of a gradient at its output.

    Attributes:
        output: channels last.
        gradients: of the layer's parameters, by state-dict key.
        input_gradient: channels last.
    """

    output: np.ndarray
    gradients: Mapping[str, np.ndarray]
    input_gradient: np.ndarray


def compare_layers(
    judge: Judge,
    module: nn.Module,
    model: nnx.Module,
    oracle: Trace,
    calls: Mapping[str, LayerCall],
    rename: Rename,
    *,
    rounded: nn.Module | None = None,
) -> list[Comparison]:
    """Compare every leaf layer that both networks have, in execution order.

    Input and gradient are the float64 run's, rounded to the dtype; the oracle is PyTorch's layer in
    float64 on those. Of a layer's output and gradients the one nearest its budget is kept.

    Args:
        judge: tells network, dtype and mode.
        module: the PyTorch network, in float64.
        model: the Flax network.
        oracle: the float64 run of ``module``, on whose way the layers were met.
        calls: how the Flax network called its layers.
        rename: dotted Flax names to PyTorch's.
        rounded: the PyTorch network in float32, if that is the dtype.
    """
    training = judge.mode == "train"
    dtype = np.dtype(judge.dtype)
    float32_layers = {} if rounded is None else dict(rounded.named_modules())
    torch_layers = dict(module.named_modules())
    flax_layers = dict(nnx.iter_modules(Split.of(model).module(training=training)))
    found = []
    with (
        set_mode(module, training=training),
        set_mode(rounded or nn.Identity(), training=training),
        comparable(model, judge.dtype),
    ):
        for call_name, call in calls.items():
            if call_name not in oracle.inputs or call_name not in oracle.layer_gradients:
                continue
            name = call_name.partition(" (call ")[0]
            x = oracle.inputs[call_name].astype(dtype)
            gradient = oracle.layer_gradients[call_name].astype(dtype)
            expected = run_torch(torch_layers[name], name, x, gradient)
            own = []
            for way in () if rounded is None else WAYS:
                with computing(way):
                    own.append(run_torch(float32_layers[name], name, x, gradient))
            try:
                run = run_flax(flax_layers[call.path], call, x, gradient, rename)
            except REFUSALS as error:
                reason = str(error).strip().partition("\n")[0]
                found.append(judge.failure(CHECK, call_name, f"fed PyTorch's input: {reason}"))
                continue
            found.append(_nearest_budget(judge, call_name, run, expected, own))
    return found


def run_torch(layer: nn.Module, name: str, x: np.ndarray, gradient: np.ndarray) -> LayerRun:
    """Run the PyTorch layer of that name, forward and backward, in its parameters' dtype."""
    parameters = dict(layer.named_parameters())
    like = next(iter(parameters.values()))
    given = channels_first(x, like).requires_grad_()
    output = layer(given)
    *of_parameters, of_input = torch.autograd.grad(
        output, [*parameters.values(), given], channels_first(gradient, like)
    )
    return LayerRun(
        output=channels_last(output),
        gradients={
            f"{name}.{key}": value.numpy(force=True)
            for key, value in zip(parameters, of_parameters, strict=True)
        },
        input_gradient=channels_last(of_input),
    )


def run_flax(
    layer: nnx.Module, call: LayerCall, x: np.ndarray, gradient: np.ndarray, rename: Rename
) -> LayerRun:
    """Run a Flax layer, forward and backward, by the code that was compiled for the network.

    Where the output has another shape than ``gradient`` there are no gradients.

    Raises:
        TypeError, ValueError: the layer refuses the input.
    """
    graphdef = nnx.graphdef(layer)
    _, parameters, rest = Split.of(layer)

    def run(parameters: nnx.State, x: Any) -> Any:
        state = nnx.merge_state(parameters, rest)
        return run_layer(call.function, graphdef, state, (x,), call.kwargs)

    def observe(x: jax.Array) -> Any:
        if not call.reads_maps:
            return x
        evaluates = getattr(layer, "use_running_average", False)
        return FeatureMaps(x) if evaluates else _standardize(x)

    given, pull_to_input = jax.vjp(observe, jnp.asarray(x))
    output, pull, _ = jax.vjp(run, parameters, given, has_aux=True)
    if output.shape != gradient.shape:
        return LayerRun(np.asarray(output), {}, np.zeros(()))
    of_parameters, of_given = pull(jnp.asarray(gradient, output.dtype))
    (of_input,) = pull_to_input(of_given)
    return LayerRun(
        output=np.asarray(output),
        gradients=torch_arrays(
            (((*call.path, *path), value) for path, value in flat_state(of_parameters)), rename
        ),
        input_gradient=np.asarray(of_input),
    )


def _nearest_budget(
    judge: Judge, layer: str, run: LayerRun, oracle: LayerRun, references: Sequence[LayerRun]
) -> Comparison:
    own = [relative_error(other.output, oracle.output) for other in references]
    forward = judge.compare(CHECK, layer, run.output, oracle.output, own, note="output")
    if run.output.shape != oracle.output.shape:
        return forward
    own = [relative_error(other.input_gradient, oracle.input_gradient) for other in references]
    found = [
        forward,
        judge.compare(
            CHECK,
            layer,
            run.input_gradient,
            oracle.input_gradient,
            own,
            backward=True,
            note="gradient of the input",
        ),
    ]
    scales = smallest_scales(oracle.gradients)
    own = [
        relative_error(other.gradients[key], expected, scale=scales[key])
        for other in references
        for key, expected in oracle.gradients.items()
    ]
    found += [
        judge.compare(
            CHECK,
            layer,
            run.gradients[key],
            expected,
            own,
            backward=True,
            scale=scales[key],
            note=f"gradient of {key}",
        )
        for key, expected in oracle.gradients.items()
        if key in run.gradients
    ]
    return max(found, key=lambda comparison: comparison.ratio)
