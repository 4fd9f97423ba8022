import functools
from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import nnx

import flaxnets


@pytest.fixture
def images() -> Callable[..., np.ndarray]:
    """Draw random float32 pictures (count, height, width, 3)."""

    def draw(count: int, height: int, width: int, seed: int = 0) -> np.ndarray:
        shape = (count, height, width, 3)
        return np.random.default_rng(seed).normal(size=shape).astype(np.float32)

    return draw


@pytest.fixture
def randomize() -> Callable[[nnx.Module], nnx.Module]:
    """Draw every bias and batch-norm variable of a network, so that none is without effect."""

    def fill(model: nnx.Module) -> nnx.Module:
        rng = np.random.default_rng(1)
        state = nnx.state(model, (nnx.Param, nnx.BatchStat))
        for path, variable in nnx.to_flat_state(state):
            shape = variable.shape
            values = {
                "scale": rng.uniform(0.5, 1.5, shape),
                "var": rng.uniform(0.5, 1.5, shape),
                "bias": rng.normal(0, 0.3, shape),
                "mean": rng.normal(0, 0.3, shape),
            }
            if path[-1] in values:
                variable.set_value(jax.numpy.asarray(values[path[-1]], variable.dtype))
        nnx.update(model, state)
        return model

    return fill


# Compiling takes nearly all of the tests' time: half as long without optimisation.
COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}


@functools.partial(jax.jit, static_argnums=(0, 1), compiler_options=COMPILER_OPTIONS)
def run(function: Callable, graphdef: nnx.GraphDef, state: nnx.State, x: jax.Array) -> tuple:
    model = nnx.merge(graphdef, state, copy=True)
    outputs = function(model, x)
    return outputs, nnx.state(model)


def features(model: nnx.Module, x: jax.Array) -> dict[str, jax.Array]:
    return model.features(x)


@pytest.fixture
def forward() -> Callable[..., dict[str, jax.Array]]:
    """The compiled ``model.features(x)``, or ``function(model, x)``; updates the model's state."""

    def call(model: nnx.Module, x: jax.Array, function: Callable = features) -> dict:
        outputs, state = run(function, *nnx.split(model), x)
        nnx.update(model, state)
        return outputs

    return call


@pytest.fixture
def gradients() -> Callable[..., tuple]:
    """Differentiate ``function(model, inputs) -> (loss, outputs)`` by parameters and inputs.

    Returns both gradients, the outputs, and the batch statistics that the call left behind.
    """

    def differentiate(function: Callable, model: nnx.Module, inputs: object) -> tuple:
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)

        def loss(parameters: nnx.State, inputs: object) -> tuple:
            model = nnx.merge(graphdef, parameters, rest, copy=True)
            value, outputs = function(model, inputs)
            return value, (outputs, nnx.state(model, nnx.BatchStat))

        gradient = jax.grad(loss, argnums=(0, 1), has_aux=True)
        compiled = jax.jit(gradient, compiler_options=COMPILER_OPTIONS)
        (by_parameters, by_inputs), (outputs, statistics) = compiled(parameters, inputs)
        return by_parameters, by_inputs, outputs, statistics

    return differentiate


@pytest.fixture
def output_shapes() -> Callable[..., dict[str, tuple[int, ...]]]:
    """The shapes of ``model.features(x)`` for a config and (N, H, W), without computing them."""

    def shapes(config: object, *size: int) -> dict[str, tuple[int, ...]]:
        found: dict[str, tuple[int, ...]] = {}

        def trace(x: jax.Array) -> None:
            model = flaxnets.build(config, rngs=nnx.Rngs(0))
            found.update({name: value.shape for name, value in model.features(x).items()})

        nnx.eval_shape(trace, jax.ShapeDtypeStruct((*size, 3), np.float32))
        stages = [f"stage{number}" for number in range(1, len(found) - 2)]
        assert list(found) == ["stem", *stages, "pre_logits", "logits"]  # in this order
        return found

    return shapes


class Square(nnx.Module):
    """x * x + 1: commutes with no convolution, norm, ReLU, addition or pooling around it."""

    def __call__(self, x: jax.Array) -> jax.Array:
        return x * x + 1


@pytest.fixture
def mark_dropout() -> Callable[[nnx.Module], list[str]]:
    """Replace every dropout layer by ``Square`` and return their dotted names."""

    def replace(model: nnx.Module) -> list[str]:
        modules = dict(nnx.iter_modules(model))
        names = [path for path, module in modules.items() if isinstance(module, nnx.Dropout)]
        for path in names:
            setattr(modules[path[:-1]], path[-1], Square())
        return sorted(".".join(map(str, path)) for path in names)

    return replace
