"""The training step, the dispatch of several steps, and evaluation, by numbers."""

import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from train import augment, optimizer, step

SGD = optimizer.sgd(0.1, momentum=0.9, weight_decay=1e-3)
KEY = jax.random.key(5)


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: bool((x == y).all()), raw(a), raw(b)))


def raw(tree):
    """Typed keys as the integers they hold."""

    def plain(x):
        return jax.random.key_data(x) if jnp.issubdtype(x.dtype, jax.dtypes.prng_key) else x

    return jax.tree.map(lambda x: np.asarray(plain(x)), tree)


@pytest.fixture(scope="module")
def data(tiny):
    return tiny.dataset()


@pytest.fixture(scope="module")
def chunk_of(tiny, data):
    """Make a jitted dispatch of so many steps, and a function that makes the first state."""
    graph, _, _ = step.split(tiny.Network(nnx.Rngs(0)), SGD)
    preprocessing = step.Preprocessing.of(data)

    def make(length):
        return jax.jit(
            step.make_train_chunk(
                step.make_train_step(graph, SGD),
                step.Batches(preprocessing, batch_size=8, steps_per_epoch=7),
                length=length,
            )
        )

    return make


def first_state(tiny, dropout=0.2):
    return step.split(tiny.Network(nnx.Rngs(0), dropout=dropout), SGD)[2]


def test_one_step_is_gradient_of_the_mean_cross_entropy_through_sgd(tiny):
    network = tiny.Network(nnx.Rngs(0), dropout=0.0)
    graph, _, state = step.split(network, SGD)
    images = jax.random.normal(jax.random.key(1), (5, 8, 8, 3))
    labels = jnp.array([0, 1, 2, 3, 3], jnp.int32)
    after, metrics = jax.jit(step.make_train_step(graph, SGD))(state, images, labels)

    def loss(params):
        model = nnx.merge(graph, params, state.model_state, copy=True)
        logits = model(images)
        chosen = logits[jnp.arange(5), labels]
        return -(chosen - jax.nn.logsumexp(logits, axis=1)).mean(), logits

    (expected, logits), gradients = jax.value_and_grad(loss, has_aux=True)(state.params)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-6)
    assert int(metrics["correct"]) == int((np.argmax(logits, 1) == labels).sum())
    assert int(after.step) == 1
    moved = jax.tree.map(lambda p, g: p - 0.1 * (g + 1e-3 * p), state.params, gradients)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), after.params, moved)
    features = nnx.merge(graph, state.params, state.model_state, copy=True).conv(images)
    mean = 0.01 * features.mean(axis=(0, 1, 2))  # flax.nnx.BatchNorm keeps 0.99 of the old
    np.testing.assert_allclose(after.model_state["bn"]["mean"][...], mean, atol=1e-6)


def test_loss_is_computed_in_float32_at_least():
    logits = jnp.array([[4.0, 4.03125, -3.0]], jnp.bfloat16)
    got = step.cross_entropy(logits, jnp.array([0]))
    assert got.dtype == jnp.float32
    wide = np.asarray(logits, np.float64)
    np.testing.assert_allclose(got, np.log(np.exp(wide).sum()) - wide[0, 0], rtol=1e-6)
    with jax.enable_x64(True):
        assert step.cross_entropy(jnp.zeros((1, 3), jnp.float64), jnp.array([0])).dtype == "float64"


def test_a_dispatch_is_its_steps_one_by_one_on_the_documented_pictures(tiny, data, chunk_of):
    """Orders, crops and flips recomputed from the keys as the documentation gives them."""
    graph, _, state = step.split(tiny.Network(nnx.Rngs(0)), SGD)
    one = jax.jit(step.make_train_step(graph, SGD))
    start = expected = jax.tree.map(jnp.copy, state)
    losses, correct = [], 0
    for s in range(7, 14):  # the second epoch
        order = jax.random.permutation(jax.random.fold_in(jax.random.fold_in(KEY, 0), 1), 59)
        rows = order[(s - 7) * 8 : (s - 6) * 8]
        draws = augment.random_offsets_and_flips(
            jax.random.fold_in(jax.random.fold_in(KEY, 1), s), 8, data.crop_padding
        )
        pictures = jnp.asarray(data.train_images)[rows]
        pictures = augment.crop_and_flip(pictures, *draws, data.crop_padding)
        pictures = augment.normalize(pictures, data.mean, data.std)
        expected, metrics = one(expected, pictures, data.train_labels[rows])
        losses.append(metrics["loss"])
        correct += int(metrics["correct"])
    start = step.TrainState(jnp.int32(7), start.params, start.model_state, start.opt_state)
    got, metrics = chunk_of(7)(start, KEY, data.train_images, data.train_labels)
    assert int(got.step) == 14
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-5)
    assert int(metrics["correct"].sum()) == correct
    assert bool(metrics["finite"])
    for name in ("params", "model_state"):
        a, b = raw(getattr(got, name)), raw(getattr(expected, name))
        jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, atol=1e-5), a, b)


def test_two_dispatches_of_two_steps_are_one_of_four(tiny, data, chunk_of):
    two = chunk_of(2)
    state, losses = first_state(tiny), []
    for _ in range(2):
        state, metrics = two(state, KEY, data.train_images, data.train_labels)
        losses.extend(metrics["loss"])
        state = jax.tree.map(jnp.copy, state)
    whole, metrics = chunk_of(4)(first_state(tiny), KEY, data.train_images, data.train_labels)
    np.testing.assert_allclose(metrics["loss"], losses, rtol=1e-6)
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7), raw(state), raw(whole)
    )


def test_runs_differ_by_key_and_epochs_by_order(tiny, data, chunk_of):
    chunk = chunk_of(2)
    state = first_state(tiny)
    images, labels = data.train_images, data.train_labels
    a, _ = chunk(state, KEY, images, labels)
    assert same(a, chunk(state, KEY, images, labels)[0])
    assert not same(a.params, chunk(state, jax.random.key(6), images, labels)[0].params)
    later = step.TrainState(jnp.int32(14), state.params, state.model_state, state.opt_state)
    assert not same(a.params, chunk(later, KEY, images, labels)[0].params)


def test_dropout_stream_moves_with_the_steps(tiny, data, chunk_of):
    state, _ = chunk_of(2)(first_state(tiny), KEY, data.train_images, data.train_labels)
    assert int(state.model_state["dropout"]["rngs"]["count"][...]) == 2


def test_finite_tells_of_broken_parameters(tiny, data, chunk_of):
    state = first_state(tiny)
    broken = jax.tree.map(lambda x: x * jnp.inf, state.params)
    state = step.TrainState(state.step, broken, state.model_state, state.opt_state)
    _, metrics = chunk_of(2)(state, KEY, data.train_images, data.train_labels)
    assert not bool(metrics["finite"])
    assert not np.isfinite(metrics["loss"]).any()


def test_evaluation_counts_every_picture_once_and_padding_never(tiny, data):
    network = tiny.Network(nnx.Rngs(0))
    _, evaluation_graph, state = step.split(network, SGD)
    evaluate = jax.jit(
        step.make_evaluate(evaluation_graph, step.Preprocessing.of(data), batch_size=8)
    )
    images = np.pad(data.test_images, ((0, 3), (0, 0), (0, 0), (0, 0)), constant_values=77)
    labels = np.pad(data.test_labels, (0, 3), constant_values=-1)
    loss = correct = 0
    for start in (0, 8, 16):
        metrics = evaluate(state.params, state.model_state, images, labels, np.int32(start))
        loss, correct = loss + float(metrics["loss"]), correct + int(metrics["correct"])
    network.eval()
    logits = network(augment.normalize(data.test_images, data.mean, data.std))
    expected = optax.losses.softmax_cross_entropy_with_integer_labels(logits, data.test_labels)
    assert loss == pytest.approx(float(expected.sum()), rel=1e-5)
    assert correct == int((np.argmax(logits, 1) == data.test_labels).sum())


def test_splitting_leaves_both_modes_and_no_variable_behind(tiny):
    network = tiny.Network(nnx.Rngs(0))
    graph, evaluation_graph, state = step.split(network, SGD)
    assert not nnx.merge(graph, state.params, state.model_state).bn.use_running_average
    assert nnx.merge(evaluation_graph, state.params, state.model_state).bn.use_running_average
    leaves = jax.tree.leaves(nnx.state(network))
    assert len(leaves) == len(jax.tree.leaves((state.params, state.model_state))) == 10


TWO_DEVICES = """
import pathlib, sys
sys.path.insert(0, sys.argv[1])
import jax, numpy as np, tiny
from train.engine import Engine

assert jax.device_count() == int(sys.argv[2])
engine = Engine(tiny.CONFIG, tiny.dataset(), tiny.build(tiny.CONFIG, tiny.dataset()))
engine.compile_chunk(2)
engine.compile_evaluation()
losses = [engine.advance(2)[0] for _ in range(3)]
loss, accuracy = engine.evaluate(lambda done, total: None)
text = engine._chunks[2].as_text()
assert ("all-reduce" in text) == (jax.device_count() > 1)
leaves = jax.tree.leaves(engine.state.params)
assert all(leaf.sharding.is_fully_replicated for leaf in leaves)
np.savez(sys.argv[3], *leaves, losses=np.concatenate(losses), test=[loss, accuracy])
"""


def test_two_devices_compute_what_one_does(tiny, tmp_path):
    """Statistics of the whole batch on both: only the order of summation differs."""
    results = []
    for devices in (1, 2):
        file = tmp_path / f"{devices}.npz"
        subprocess.run(
            [
                sys.executable,
                "-c",
                TWO_DEVICES,
                str(Path(tiny.__file__).parent),
                str(devices),
                str(file),
            ],
            env=os.environ
            | {
                "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices}",
                "JAX_PLATFORMS": "cpu",
            },
            check=True,
        )
        results.append(np.load(file))
    one, two = results
    assert sorted(one) == sorted(two)
    for name in one:
        np.testing.assert_allclose(one[name], two[name], rtol=2e-4, atol=2e-6, err_msg=name)
