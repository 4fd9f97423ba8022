"""Long rows of equal blocks are a loop, and compute what they compute one by one."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets import repetition
from flaxnets.intercept import intercepted

RESNET = {"stage_sizes": (4, 1, 3), "widths": (4, 6, 8), "stem_width": 4}
BOTTLENECK = {"stage_sizes": (3, 3), "widths": (4, 8), "stem_width": 8}
PREACT = {"stage_sizes": (4, 3), "widths": (4, 8), "stem_width": 4}

# A network, what differs from it, and the rows that are loops.
NETWORKS: dict[str, tuple[str, dict[str, Any], list[int]]] = {
    "resnet": ("resnet20", RESNET, [4, 2]),
    "bottleneck": ("resnet50_cifar", BOTTLENECK, [2, 2]),
    "preact": ("preact_resnet18_cifar", PREACT, [4, 2]),
    "wrn with dropout": ("wrn_16_1", {"dropout": 0.3, "depth": 22}, [3, 2, 2]),
}


@pytest.fixture(autouse=True)
def loops(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all rows that have become loops; two blocks are enough for one."""
    lengths: list[int] = []
    loop = repetition._loop

    def noted(row: list, x: jax.Array) -> jax.Array:
        lengths.append(len(row))
        return loop(row, x)

    monkeypatch.setattr(repetition, "_loop", noted)
    for name in ("FEWEST", "FEWEST_ON_CPU"):
        monkeypatch.setattr(repetition, name, 2)
    return lengths


def step(model: nnx.Module, *, watched: bool = False) -> Any:
    """Loss, state and gradients of a step in training mode, compiled."""
    graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
    x = jax.random.normal(jax.random.key(1), (2, 8, 12, 3))

    def loss(parameters: Any, rest: Any, x: jax.Array) -> Any:
        model: Any = nnx.merge(graphdef, parameters, rest, copy=True)
        if watched:
            with intercepted(model, lambda _path, _module, call, *args: call(*args)):
                logits = model(x)
        else:
            logits = model(x)
        return jnp.square(logits).sum(), nnx.state(model, nnx.Not(nnx.Param))

    function = jax.jit(jax.value_and_grad(loss, has_aux=True))
    return function(parameters, rest, x)


@pytest.mark.parametrize("name", NETWORKS)
def test_a_loop_computes_what_its_blocks_compute(name: str, loops: list[int]) -> None:
    arch, options, rows = NETWORKS[name]
    with jax.enable_x64(True):
        model = flaxnets.create(
            arch, rngs=nnx.Rngs(0), dtype="float64", param_dtype="float64", **options
        )
        (loss, rest), gradients = step(model)
        assert loops == rows
        (expected, expected_rest), expected_gradients = step(model, watched=True)
        assert loops == rows
    np.testing.assert_allclose(loss, expected, rtol=1e-12)
    for found, wanted in ((rest, expected_rest), (gradients, expected_gradients)):
        assert jax.tree.structure(found) == jax.tree.structure(wanted)
        for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
            if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
                a, b = jax.random.key_data(a), jax.random.key_data(b)
            np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12)


def test_evaluation_is_a_loop_too(loops: list[int]) -> None:
    arch, options, rows = NETWORKS["resnet"]
    model = flaxnets.create(arch, rngs=nnx.Rngs(0), **options)
    model.eval()
    x = jax.random.normal(jax.random.key(1), (2, 8, 12, 3))
    compiled = jax.jit(lambda x: model(x))
    np.testing.assert_allclose(compiled(x), model(x), rtol=1e-5, atol=1e-5)
    assert loops == rows


def test_short_rows_are_written_out(monkeypatch: pytest.MonkeyPatch, loops: list[int]) -> None:
    monkeypatch.setattr(repetition, "FEWEST_ON_CPU", 4)
    arch, options, _ = NETWORKS["resnet"]
    step(flaxnets.create(arch, rngs=nnx.Rngs(0), **options))
    assert loops == [4]


def test_large_blocks_are_written_out(monkeypatch: pytest.MonkeyPatch, loops: list[int]) -> None:
    monkeypatch.setattr(repetition, "LARGE_BYTES", 3000)  # between those of 4 and 8 channels
    arch, options, _ = NETWORKS["resnet"]
    step(flaxnets.create(arch, rngs=nnx.Rngs(0), **options))
    assert loops == [4]
