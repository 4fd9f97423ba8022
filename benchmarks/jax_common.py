"""What both JAX sides share: configs, weights, precision, the passes of a convolution."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import flaxnets
from benchmarks import convolutions
from benchmarks.convolutions import FORWARD, OF_INPUT, OF_KERNEL, Convolution, Pass
from benchmarks.data import draw_weights
from benchmarks.machine import require_memory
from benchmarks.task import Task
from flaxnets.layout import FROM_TORCH_AXES, TO_TORCH_AXES, VARIABLES, torch_name
from flaxnets.registry import Config

BATCHES_TRACKED = "num_batches_tracked"


def network_config(task: Task) -> Config:
    """The config of the task's network."""
    return flaxnets.get_config(task.arch, **task.options)


def compute_dtype(task: Task) -> Any:
    """What the network is to compute in."""
    return jnp.bfloat16 if task.dtype == "bfloat16" else jnp.float32


def prepare_device(task: Task) -> None:
    """Have a GPU compute matrix products as the task says; on a CPU see to the memory.

    Raises:
        ValueError: this device can't.
        MemoryError: a batch is too large for this machine.
    """
    if jax.default_backend() == "cpu":
        require_memory(task)
    if task.dtype == "tf32" and jax.default_backend() != "gpu":
        raise ValueError("--dtype tf32 is a GPU's; this device has float32 and bfloat16")
    if jax.default_backend() == "gpu":
        precision = {"float32": "highest", "tf32": "tensorfloat32"}.get(task.dtype)
        jax.config.update("jax_default_matmul_precision", precision)


class Convolutions(convolutions.Convolutions):
    """The passes of convolutions, each compiled by itself.

    Args:
        task: the task.
        convolve: called as ``flaxnets.convolution.conv2d``.
        of_pictures: where arrays of N pictures lie; None for the first device.
        of_kernels: where kernels and their gradients lie, likewise.
    """

    def __init__(
        self,
        task: Task,
        convolve: Callable[..., jax.Array],
        of_pictures: jax.sharding.Sharding | None = None,
        of_kernels: jax.sharding.Sharding | None = None,
    ) -> None:
        super().__init__(task)
        self._dtype, self._convolve = compute_dtype(task), convolve
        self._of_pictures, self._of_kernels = of_pictures, of_kernels
        self._compiled: dict[Convolution, dict[str, Any]] = {}

    def _compile(self, layer: Convolution) -> dict[str, Any]:
        convolve = functools.partial(
            self._convolve, stride=layer.stride, padding=layer.padding, groups=layer.groups
        )

        def of_input(x: jax.Array, k: jax.Array, g: jax.Array) -> jax.Array:
            return jax.vjp(lambda x: convolve(x, k), x)[1](g)[0]

        def of_kernel(x: jax.Array, k: jax.Array, g: jax.Array) -> jax.Array:
            return jax.vjp(lambda k: convolve(x, k), k)[1](g)[0]

        return {
            FORWARD: jax.jit(lambda x, k, g: convolve(x, k), out_shardings=self._of_pictures),
            OF_INPUT: jax.jit(of_input, out_shardings=self._of_pictures),
            OF_KERNEL: jax.jit(of_kernel, out_shardings=self._of_kernels),
        }

    def _passes(
        self, layer: Convolution, images: np.ndarray, kernel: np.ndarray, gradient: np.ndarray
    ) -> dict[str, Pass]:
        if layer not in self._compiled:
            self._compiled[layer] = self._compile(layer)
        compiled = self._compiled[layer]
        arrays = [
            jax.device_put(array.astype(self._dtype), place)
            for array, place in (
                (images, self._of_pictures),
                (kernel, self._of_kernels),
                (gradient, self._of_pictures),
            )
        ]
        return {name: functools.partial(compiled[name], *arrays) for name in layer.passes}

    def _wait(self, result: Any) -> None:
        jax.block_until_ready(result)

    def _fetch(self, result: Any) -> np.ndarray:
        return np.asarray(result, np.float32)


def set_weights(model: nnx.Module) -> None:
    """Replace all parameters and statistics by the weights that every side begins with."""
    variables = _variables(model)
    shapes = {}
    for name, variable in variables.items():
        axes = TO_TORCH_AXES.get(variable.ndim, range(variable.ndim))
        shapes[name] = tuple(variable.shape[axis] for axis in axes)
    for name, weight in draw_weights(shapes).items():
        axes = FROM_TORCH_AXES.get(weight.ndim, range(weight.ndim))
        variables[name].set_value(jnp.asarray(weight.transpose(axes)))


def parameters(state: nnx.State) -> dict[str, np.ndarray]:
    """Copies of all parameters by PyTorch's names and in its layout."""
    values = {}
    for name, variable in _flat(state).items():
        value = np.array(variable[...])
        values[name] = value.transpose(TO_TORCH_AXES.get(value.ndim, range(value.ndim)))
    return values


def _variables(model: nnx.Module) -> dict[str, Any]:
    found = {}
    for path, variable in nnx.iter_graph(model):
        if isinstance(variable, VARIABLES) and path[-1] != BATCHES_TRACKED:
            found[torch_name(path)] = variable
    return found


def _flat(state: nnx.State) -> dict[str, Any]:
    flat = nnx.to_flat_state(state)
    return {torch_name(path): leaf for path, leaf in zip(flat.paths, flat.leaves, strict=True)}
