"""What every family has in common."""

from collections.abc import Callable
from dataclasses import fields, replace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.registry import Config, Model

CONFIGS = {
    "resnet": flaxnets.ResNetConfig(
        stage_sizes=(1, 1), widths=(4, 8), stem="cifar", stem_width=4, num_classes=3
    ),
    "densenet": flaxnets.DenseNetConfig(
        block_sizes=(2, 1), growth_rate=2, stem_width=4, num_classes=3
    ),
    "wrn": flaxnets.WideResNetConfig(depth=10, widen_factor=1, num_classes=3),
    "preact_resnet": flaxnets.PreActResNetConfig(
        stage_sizes=(1, 1), widths=(4, 8), stem_width=4, num_classes=3
    ),
}
FIELDS = {name: {field.name for field in fields(config)} for name, config in CONFIGS.items()}
WITH_DROPOUT = {
    name: replace(config, dropout=0.5)
    for name, config in CONFIGS.items()
    if "dropout" in FIELDS[name]
}


@pytest.fixture(params=sorted(CONFIGS))
def config(request: pytest.FixtureRequest) -> Config:
    return CONFIGS[request.param]


def build(config: Config, **options: object) -> Model:
    return flaxnets.build(config, rngs=nnx.Rngs(0), **options)


def call(model: Model, x: jax.Array) -> jax.Array:
    return model(x)


def values(model: nnx.Module, *filters: object) -> dict[str, np.ndarray]:
    flat = nnx.to_flat_state(nnx.state(model, *filters))
    return {".".join(map(str, path)): np.asarray(variable) for path, variable in flat}


def assert_equal(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> None:
    assert a.keys() == b.keys()
    for name, value in a.items():
        np.testing.assert_array_equal(value, b[name], err_msg=name)


def test_new_networks_train_and_then_evaluate(
    config: Config, images: Callable, randomize: Callable, forward: Callable
) -> None:
    """Only training moves the running statistics, and lets pictures depend on their neighbours."""
    model, x = randomize(build(config)), images(3, 6, 5)
    before = values(model)
    outputs = forward(model, x)["logits"]
    for name, value in values(model, nnx.BatchStat).items():
        assert (value != before[name]).all(), name
    assert_equal(values(model, nnx.Param), {k: before[k] for k in values(model, nnx.Param)})

    model.eval()
    before = values(model)
    evaluated = forward(model, x)["logits"]
    assert_equal(values(model), before)
    assert np.abs(evaluated - outputs).max() > 1e-3
    among_others = forward(model, np.concatenate([images(2, 6, 5, seed=9), x[:1]]))["logits"]
    np.testing.assert_allclose(among_others[2], evaluated[0], rtol=1e-5, atol=1e-6)

    model.train()
    forward(model, x)
    counts = "num_batches_tracked"
    assert {int(v) for name, v in values(model).items() if name.endswith(counts)} == {2}


def test_compiled_equals_eager(images: Callable, randomize: Callable) -> None:
    model = randomize(build(CONFIGS["resnet"]))
    compiled, x = nnx.clone(model), images(2, 6, 6)
    call = nnx.jit(lambda model, x: model(x))
    for _ in ("training", "evaluation"):
        np.testing.assert_allclose(call(compiled, x), model(x), rtol=1e-5, atol=1e-5)
        eager = values(model)
        for name, value in values(compiled).items():
            np.testing.assert_allclose(value, eager[name], rtol=1e-5, atol=1e-5, err_msg=name)
        compiled.eval()
        model.eval()


def test_every_parameter_has_a_gradient(
    images: Callable, randomize: Callable, gradients: Callable
) -> None:
    """Through ``nnx.split(model, nnx.Param, ...)`` and ``nnx.merge``, as a training loop goes."""
    model = randomize(build(CONFIGS["resnet"]))
    model.eval()

    def loss(model: Model, x: jax.Array) -> tuple:
        return jnp.square(model(x) - 1).sum(), None

    by_parameters, by_pictures, _, _ = gradients(loss, model, images(2, 6, 5))
    flat = nnx.to_flat_state(by_parameters)
    assert flat.paths == nnx.to_flat_state(nnx.state(model, nnx.Param)).paths
    for path, gradient in flat:
        assert jnp.isfinite(gradient[...]).all(), path
        assert jnp.abs(gradient[...]).max() > 0, path
    assert (jnp.abs(by_pictures).max((1, 2)) > 0).all()


@pytest.mark.parametrize("name", CONFIGS)
def test_variables_are_parameters_statistics_and_random_state(name: str) -> None:
    for made, kinds in ((CONFIGS[name], 2), (WITH_DROPOUT.get(name), 3)):
        if made is None:
            continue
        model = nnx.eval_shape(lambda made=made: build(made))
        _, *states = nnx.split(model, nnx.Param, nnx.BatchStat, nnx.RngState)
        sizes = [len(nnx.to_flat_state(state).leaves) for state in states]
        assert [size > 0 for size in sizes] == [True, True, kinds == 3]
        leaves = {path[-1] for path in nnx.to_flat_state(states[0]).paths}
        assert leaves == {"kernel", "scale", "bias"}
        leaves = {path[-1] for path in nnx.to_flat_state(states[1]).paths}
        assert leaves == {"mean", "var", "num_batches_tracked"}


@pytest.mark.parametrize(
    ("dtype", "param_dtype"),
    [
        (jnp.float32, jnp.float32),
        (jnp.bfloat16, jnp.float32),
        (jnp.bfloat16, jnp.bfloat16),
        (jnp.float16, jnp.float32),
    ],
)
def test_dtypes(config: Config, dtype: object, param_dtype: object) -> None:
    """Parameters in param_dtype, every map and the logits in dtype, statistics in float32."""
    model = nnx.eval_shape(lambda: build(config, dtype=dtype, param_dtype=param_dtype))
    for training in (True, False):
        model.train() if training else model.eval()
        for image_dtype in (jnp.float32, jnp.bfloat16):
            x = jax.ShapeDtypeStruct((2, 8, 8, 3), image_dtype)
            outputs = nnx.eval_shape(lambda model, x: model.features(x), model, x)
            assert {value.dtype for value in outputs.values()} == {jnp.dtype(dtype)}
    parameters, statistics = (nnx.state(model, kind) for kind in (nnx.Param, nnx.BatchStat))
    assert {leaf.dtype for leaf in jax.tree.leaves(parameters)} == {jnp.dtype(param_dtype)}
    dtypes = {path[-1]: leaf.dtype for path, leaf in nnx.to_flat_state(statistics)}
    assert dtypes == {"mean": jnp.float32, "var": jnp.float32, "num_batches_tracked": jnp.int32}


def test_float64_throughout(config: Config) -> None:
    with jax.enable_x64(True):
        double = {"dtype": jnp.float64, "param_dtype": jnp.float64}
        model = nnx.eval_shape(lambda: build(config, **double))
        x = jax.ShapeDtypeStruct((2, 8, 8, 3), jnp.float64)
        outputs = nnx.eval_shape(lambda model, x: model.features(x), model, x)
        assert {value.dtype for value in outputs.values()} == {jnp.dtype("float64")}
        dtypes = {leaf.dtype for leaf in jax.tree.leaves(nnx.state(model))}
        assert dtypes == {jnp.dtype("float64"), jnp.dtype("int32")}


@pytest.mark.parametrize("name", WITH_DROPOUT)
def test_flags_of_the_two_modes(name: str) -> None:
    model = nnx.eval_shape(lambda: build(WITH_DROPOUT[name]))

    def flags() -> dict[str, set[bool]]:
        modules = [module for _, module in nnx.iter_modules(model)]
        return {
            name: {getattr(module, name) for module in modules if hasattr(module, name)}
            for name in ("use_running_average", "deterministic")
        }

    assert flags() == {"use_running_average": {False}, "deterministic": {False}}
    model.eval()
    assert flags() == {"use_running_average": {True}, "deterministic": {True}}
    model.train()
    assert flags() == {"use_running_average": {False}, "deterministic": {False}}


def test_dropout_is_random_only_in_training(images: Callable, forward: Callable) -> None:
    # The rbg generator compiles in a tenth of the default's time.
    rngs = nnx.Rngs(params=0, dropout=jax.random.key(0, impl="rbg"))
    model = flaxnets.build(WITH_DROPOUT["resnet"], rngs=rngs)
    x = images(2, 6, 6)
    first, second = forward(model, x)["stage1"], forward(model, x)["stage1"]
    assert np.mean(np.asarray(first) != np.asarray(second)) > 0.2
    model.eval()
    first, second = forward(model, x)["logits"], forward(model, x)["logits"]
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(
    ("shape", "dtype", "message"),
    [
        ((2, 3, 8, 8), np.float32, r"\(N, H, W, 3\), got shape \(2, 3, 8, 8\).*NCHW.*transpose"),
        ((8, 8, 3), np.float32, r"got shape \(8, 8, 3\)"),
        ((2, 8, 8, 1), np.float32, r"got shape \(2, 8, 8, 1\)"),
        ((2, 8, 8, 3), np.uint8, r"must be floating point, got uint8"),
        ((2, 8, 8, 3), np.int32, r"must be floating point, got int32"),
    ],
)
def test_wrong_pictures(config: Config, shape: tuple[int, ...], dtype: type, message: str) -> None:
    model = nnx.eval_shape(lambda: build(config))
    x = jax.ShapeDtypeStruct(shape, dtype)
    with pytest.raises(ValueError, match=message):
        nnx.eval_shape(lambda model, x: model(x), model, x)


def test_networks_of_one_seed_are_equal(config: Config) -> None:
    assert_equal(values(build(config), nnx.Param), values(build(config), nnx.Param))


def test_without_a_classifier(config: Config, images: Callable, forward: Callable) -> None:
    """The network ends with what the classifier would read; nothing else is another."""
    whole, headless = build(config), build(replace(config, num_classes=0))
    x = images(2, 6, 5)
    expected, outputs = forward(whole, x), forward(headless, x)
    assert outputs.keys() == expected.keys() - {"logits"}
    assert outputs["pre_logits"].ndim == 2
    for name, value in outputs.items():
        np.testing.assert_array_equal(value, expected[name], err_msg=name)
    classifier = ("classifier" if config is CONFIGS["densenet"] else "fc") + "."
    kept = {name: v for name, v in values(whole).items() if not name.startswith(classifier)}
    assert_equal(values(headless), kept)
    assert len(kept) == len(values(whole)) - 2
    called = forward(headless, x, call)
    np.testing.assert_allclose(called, expected["pre_logits"], rtol=1e-6, atol=1e-7)


def test_avg_pool_pad_refuses_odd_maps() -> None:
    model = flaxnets.create(
        "resnet20",
        shortcut="avg_pool_pad",
        stage_sizes=(1, 1),
        widths=(4, 8),
        stem_width=4,
        rngs=nnx.Rngs(0),
    )
    with pytest.raises(ValueError, match="even size only, got 9x9"):
        nnx.eval_shape(
            lambda model, x: model(x), model, jax.ShapeDtypeStruct((2, 9, 9, 3), jnp.float32)
        )
