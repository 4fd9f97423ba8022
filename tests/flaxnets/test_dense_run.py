"""Runs of dense layers compute what the layers compute one by one."""

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets import dense_run, densenet
from flaxnets.intercept import intercepted

OPTIONS: dict[str, dict[str, Any]] = {
    "old maps first": {},
    "new maps first": {"concat": "new_old"},
    "dropout": {"dropout": 0.2},
    "dropout after the last convolution": {"dropout": 0.2, "dropout_after": "last_conv"},
}
# The form for GPUs, by the names of what takes its place on a CPU.
WRITTEN_OUT = {
    "_loop": dense_run._write_out,
    "_expand_on_cpu": dense_run._expand,
    "_add_gradients_on_cpu": dense_run._add_gradients,
}
# Compiling takes nearly all of the time: half as long without optimisation.
COMPILER_OPTIONS = {"xla_backend_optimization_level": 0}


def make(**options: Any) -> nnx.Module:
    """Blocks of four and of two layers."""
    sizes = {"block_sizes": (4, 2), "growth_rate": 3, "stem_width": 5}
    return flaxnets.create("densenet_bc_40_12", rngs=nnx.Rngs(0), **(sizes | options))


@pytest.fixture(autouse=True)
def runs(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The lengths of all runs; three layers at most, and a picture a chunk."""
    lengths: list[int] = []
    run_layers = dense_run.run_layers

    def noted(layers: list, *args: Any, **options: Any) -> Any:
        lengths.append(len(layers))
        return run_layers(layers, *args, **options)

    monkeypatch.setattr(densenet, "run_layers", noted)
    monkeypatch.setattr(densenet, "LENGTH", 3)
    monkeypatch.setattr(dense_run, "CHUNK_BYTES", 1)
    return lengths


def step(model: Any, *, training: bool = True, watched: bool = False) -> tuple[Any, Any]:
    """A compiled function of all a network's outputs and its arguments.

    It gives the state after the call, and the gradients of parameters, statistics and pictures.
    """
    (model.train if training else model.eval)()
    graphdef, numbers, rest = nnx.split(model, dense_run._is_number, ...)
    dtype = model.norm5.scale.dtype
    x = jax.random.normal(jax.random.key(1), (4, 8, 12, 3), dtype)

    def loss(numbers: Any, x: jax.Array, rest: Any) -> Any:
        model: Any = nnx.merge(graphdef, numbers, rest, copy=True)
        if watched:
            with intercepted(model, lambda _path, _module, call, *args: call(*args)):
                outputs = model.features(x)
        else:
            outputs = model.features(x)
        state = nnx.state(model)
        # The running statistics take part, so that their gradients are seen too.
        terms = [*outputs.values(), *jax.tree.leaves(nnx.filter_state(state, nnx.BatchStat))]
        return sum((y + y**2 / 3).sum() for y in terms), state

    gradients = jax.grad(loss, argnums=(0, 1), has_aux=True)
    return jax.jit(gradients, compiler_options=COMPILER_OPTIONS), (numbers, x, rest)


def assert_equal(found: Any, wanted: Any) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(wanted)
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
        if jnp.issubdtype(a.dtype, jax.dtypes.prng_key):
            a, b = jax.random.key_data(a), jax.random.key_data(b)
        scale = float(jnp.abs(b).max()) if b.size else 1.0
        np.testing.assert_allclose(a, b, rtol=1e-9, atol=1e-12 * max(scale, 1.0))


@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
@pytest.mark.parametrize("shape", ["loop", "loop without C++", "written out"])
@pytest.mark.parametrize("name", OPTIONS)
def test_a_run_computes_what_its_layers_compute(
    name: str,
    shape: str,
    training: bool,
    runs: list[int],
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
) -> None:
    if shape == "loop without C++":
        request.getfixturevalue("without_native")
    for function, replacement in WRITTEN_OUT.items() if shape == "written out" else ():
        monkeypatch.setattr(dense_run, function, replacement)
    with jax.enable_x64(True):
        model = make(dtype="float64", param_dtype="float64", **OPTIONS[name])
        function, arguments = step(model, training=training)
        found = function(*arguments)
        assert runs == [3, 2]
        function, arguments = step(model, training=training, watched=True)
        assert_equal(found, function(*arguments))
        assert runs == [3, 2]


@pytest.mark.parametrize(
    ("training", "chunk_bytes", "loops"),
    [(False, 2**20, 0), (False, 1, 2), (True, 2**20, 4), (True, 1, 4)],
    ids=["evaluation, one chunk", "evaluation", "training, one chunk", "training"],
)
def test_evaluation_of_few_maps_is_written_out(
    training: bool, chunk_bytes: int, loops: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training has a loop for each of two runs, and one for its gradient."""
    monkeypatch.setattr(dense_run, "CHUNK_BYTES", chunk_bytes)
    scans = []
    scan = dense_run.lax.scan
    monkeypatch.setattr(
        dense_run.lax, "scan", lambda *args, **options: scans.append(1) or scan(*args, **options)
    )
    monkeypatch.setattr(dense_run, "map_over_chunks", lambda function, maps, most: function(maps))
    model = make()
    (model.train if training else model.eval)()
    graphdef, state = nnx.split(model)

    def total(x: jax.Array) -> Any:
        return nnx.merge(graphdef, state, copy=True)(x).sum()

    jax.jit(jax.grad(total) if training else total).trace(jnp.ones((4, 8, 12, 3)))
    assert len(scans) == loops


def test_gradients_of_gradients(runs: list[int]) -> None:
    with jax.enable_x64(True):
        model = make(dtype="float64", param_dtype="float64", block_sizes=(2,))
        model.train()
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)
        x = jax.random.normal(jax.random.key(1), (2, 4, 4, 3), jnp.float64)

        def second(watched: bool) -> Any:
            def loss(parameters: Any) -> jax.Array:
                model: Any = nnx.merge(graphdef, parameters, rest, copy=True)
                if not watched:
                    return jnp.square(model(x)).sum()
                with intercepted(model, lambda _path, _module, call, *args: call(*args)):
                    return jnp.square(model(x)).sum()

            def penalty(parameters: Any) -> jax.Array:
                return sum(jnp.square(y).sum() for y in jax.tree.leaves(jax.grad(loss)(parameters)))

            return jax.jit(jax.grad(penalty), compiler_options=COMPILER_OPTIONS)(parameters)

        assert_equal(second(watched=False), second(watched=True))
        assert runs == [2]


def without_bottleneck() -> nnx.Module:
    return make(bottleneck=False)


def with_another_convolution() -> nnx.Module:
    model: Any = make()
    model.denseblock1.denselayer2.conv1 = nnx.Conv(8, 12, (1, 1), rngs=nnx.Rngs(0))
    return model


def with_a_frozen_norm() -> nnx.Module:
    model: Any = make()
    model.train()
    model.denseblock1.denselayer3.norm1.use_running_average = True
    return model


def with_another_rate_of_dropout() -> nnx.Module:
    model: Any = make(dropout=0.2)
    model.denseblock1.denselayer1.dropout2.rate = 0.3
    return model


class Louder(densenet.DenseLayer):
    """A layer that somebody has derived."""

    def __call__(self, maps: Any) -> jax.Array:
        return 2 * super().__call__(maps)


def with_derived_layers() -> nnx.Module:
    model: Any = make()
    for index in range(1, 5):
        getattr(model.denseblock1, f"denselayer{index}").__class__ = Louder
    return model


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (without_bottleneck, []),
        (with_another_convolution, [2]),
        (with_a_frozen_norm, [2]),
        (with_another_rate_of_dropout, [2]),
        (with_derived_layers, [2]),
    ],
)
def test_layers_that_were_changed_are_written_out(
    change: Callable[[], nnx.Module], expected: list[int], runs: list[int]
) -> None:
    model = change()
    graphdef, state = nnx.split(model)
    jax.jit(lambda state, x: nnx.merge(graphdef, state)(x))(state, jnp.ones((2, 8, 8, 3)))
    assert runs == expected


def test_nothing_is_a_loop_where_nothing_is_compiled(runs: list[int]) -> None:
    make()(jnp.ones((2, 8, 8, 3)))
    assert runs == []


def test_half_precision(runs: list[int]) -> None:
    """A run in bfloat16 is as far from float32 as its layers are."""

    def gradients(dtype: str, *, watched: bool) -> np.ndarray:
        function, arguments = step(make(dtype=dtype), watched=watched)
        (of_numbers, of_images), _ = function(*arguments)
        leaves = [*jax.tree.leaves(of_numbers), of_images]
        return np.concatenate([np.asarray(x, np.float32).ravel() for x in leaves])

    exact = gradients("float32", watched=True)
    assert runs == []
    ours, written_out = (
        np.linalg.norm(gradients("bfloat16", watched=watched) - exact) for watched in (False, True)
    )
    assert runs == [3, 2]
    assert 0 < ours < 1.5 * written_out


def test_wider_parameters_than_maps(runs: list[int]) -> None:
    """Their gradients have the parameters' dtypes, and the values that float64 gives."""

    def gradients(dtype: str) -> Any:
        function, arguments = step(make(dtype=dtype, param_dtype="float64"))
        (of_numbers, _), _ = function(*arguments)
        return of_numbers

    with jax.enable_x64():
        ours, exact = gradients("float32"), gradients("float64")
    assert runs == [3, 2] * 2
    for one, other in zip(jax.tree.leaves(ours), jax.tree.leaves(exact), strict=True):
        assert one.dtype == jnp.float64
        np.testing.assert_allclose(one, other, atol=1e-4 * np.abs(other).max() + 1e-6)


def test_memory_grows_with_the_layers_not_with_their_square(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.undo()

    def temporaries(layers: int) -> int:
        model = make(block_sizes=(layers,), growth_rate=8, stem_width=8)
        graphdef, parameters, rest = nnx.split(model, nnx.Param, ...)

        def loss(parameters: Any, rest: Any, x: jax.Array) -> jax.Array:
            return nnx.merge(graphdef, parameters, rest, copy=True)(x).sum()

        x = jnp.ones((8, 32, 32, 3))
        compiled = jax.jit(jax.grad(loss)).lower(parameters, rest, x).compile()
        return compiled.memory_analysis().temp_size_in_bytes

    assert temporaries(16) < 2.5 * temporaries(8)


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np, optax
from flax import nnx
from jax.sharding import NamedSharding, PartitionSpec
import flaxnets
from train.step import make_train_step, split

assert jax.device_count() == 2
model = flaxnets.create("densenet_bc_40_12", rngs=nnx.Rngs(0), block_sizes=(3,))
optimizer = optax.sgd(0.1)
graph, _, state = split(model, optimizer)
images = np.random.default_rng(0).normal(size=(4, 8, 8, 3)).astype(np.float32)
labels = np.arange(4)
mesh = jax.make_mesh((2,), ("data",))
shares = NamedSharding(mesh, PartitionSpec("data"))
everywhere = NamedSharding(mesh, PartitionSpec())
step = make_train_step(graph, optimizer)
compiled = jax.jit(
    step, in_shardings=(everywhere, shares, shares), out_shardings=everywhere
).lower(state, images, labels).compile()
text = compiled.as_text()
assert " all-reduce(" in text
assert not any(f" {call}(" in text for call in ("all-gather", "all-to-all", "collective-permute"))
arguments = jax.device_put((state, images, labels), (everywhere, shares, shares))
found, wanted = compiled(*arguments), jax.jit(step)(state, images, labels)
for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(wanted), strict=True):
    np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
"""


def test_two_devices_exchange_sums_only() -> None:
    environment = {
        **os.environ,
        "JAX_PLATFORMS": "cpu",
        "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
    }
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=environment, check=True)
