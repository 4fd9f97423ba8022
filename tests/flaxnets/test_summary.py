"""Summaries against counts by hand, against torchvision's, and against networks that run."""

import json
import math
import time

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

import flaxnets
from flaxnets import layers
from flaxnets.intercept import intercepted

TINY = flaxnets.ResNetConfig(
    stage_sizes=(1, 1), widths=(4, 8), stem="cifar", stem_width=4, num_classes=3
)
PUBLISHED = [name for name in flaxnets.list_models() if flaxnets.info(name).multiply_adds]
QUICK = ("resnet18", "resnet50", "wide_resnet50_2", "resnext50_32x4d", "densenet121")


@pytest.fixture
def no_draws(monkeypatch):
    """Initial values of 0: tracing the random ones takes as long as all else."""
    monkeypatch.setattr(
        layers, "_draw", lambda block, key, shape, factor, dtype: jnp.zeros(shape, dtype)
    )


def test_a_tiny_network_counted_by_hand():
    model = flaxnets.build(TINY, rngs=nnx.Rngs(0))
    summary = flaxnets.summary(model, (2, 8, 6, 3))
    # path, kind, (H, W, C), parameters, multiply-adds of one picture
    expected = [
        ("conv1", "Conv 3x3", (8, 6, 4), 9 * 3 * 4, 9 * 3 * 4 * 48),
        ("bn1", "BatchNorm", (8, 6, 4), 8, 0),
        ("layer1.0.conv1", "Conv 3x3", (8, 6, 4), 144, 144 * 48),
        ("layer1.0.bn1", "BatchNorm", (8, 6, 4), 8, 0),
        ("layer1.0.conv2", "Conv 3x3", (8, 6, 4), 144, 144 * 48),
        ("layer1.0.bn2", "BatchNorm", (8, 6, 4), 8, 0),
        ("layer2.0.conv1", "Conv 3x3, stride 2", (4, 3, 8), 288, 288 * 12),
        ("layer2.0.bn1", "BatchNorm", (4, 3, 8), 16, 0),
        ("layer2.0.conv2", "Conv 3x3", (4, 3, 8), 576, 576 * 12),
        ("layer2.0.bn2", "BatchNorm", (4, 3, 8), 16, 0),
        ("layer2.0.downsample.0", "Conv 1x1, stride 2", (4, 3, 8), 32, 32 * 12),
        ("layer2.0.downsample.1", "BatchNorm", (4, 3, 8), 16, 0),
        ("fc", "Linear", (3,), 27, 24),
    ]
    got = [
        (row.path, row.kind, row.output_shape[1:], row.parameters, row.multiply_adds // 2)
        for row in summary.rows
    ]
    assert got == expected
    assert all(row.output_shape[0] == 2 for row in summary.rows)
    assert summary.multiply_adds == 2 * (108 * 48 + 288 * 48 + 288 * 12 + 576 * 12 + 32 * 12 + 24)
    assert summary.parameters == 108 + 8 + 304 + 288 + 16 + 576 + 16 + 48 + 27
    assert summary.buffers == 3 * (4 + 4 + 1) + 3 * (8 + 8 + 1)
    assert summary.parameter_bytes == 4 * (summary.parameters + summary.buffers)
    # Six maps of 8x6x4, six of 4x3x8 and three logits, of two pictures in float32.
    assert summary.activation_bytes == 2 * 4 * (6 * 192 + 6 * 96 + 3)
    assert summary.name == "ResNet"
    assert summary.input_shape == (2, 8, 6, 3)


@pytest.mark.parametrize(
    "name",
    [name if name in QUICK else pytest.param(name, marks=pytest.mark.slow) for name in PUBLISHED],
)
def test_multiply_adds_are_torchvisions(name, no_draws):
    network = flaxnets.info(name)
    started = time.perf_counter()
    summary = flaxnets.summary(name, (1, *network.input_size, 3))
    assert time.perf_counter() - started < 60
    # Published to the million (once to ten): both count convolutions and the classifier.
    assert summary.multiply_adds == pytest.approx(network.multiply_adds, abs=0.6e6, rel=1e-4)
    assert summary.parameters == network.parameters
    assert sum(row.parameters for row in summary.rows) == network.parameters


def test_all_quick_ones_are_there():
    assert set(QUICK) < set(PUBLISHED)
    assert len(PUBLISHED) == 14


@pytest.mark.parametrize(
    "name",
    [
        "resnet20",
        "kellerjordan_resnet20",
        "preact_resnet18_cifar",
        "weiaicunzai_preact_resnet18_cifar",
        "densenet_40_12",
        "densenet_bc_40_12",
        "wrn_10_1",
        "meliketoy_wrn_16_8",
    ],
)
def test_rows_add_up_in_every_family(name, no_draws):
    summary = flaxnets.summary(name, (1, 32, 48, 3))
    assert sum(row.parameters for row in summary.rows) == summary.parameters
    assert sum(row.buffers for row in summary.rows) == summary.buffers
    assert summary.parameters == flaxnets.info(name).parameters
    paths = [row.path for row in summary.rows]
    assert len(set(paths)) == len(paths)
    assert summary.rows[0].output_shape[:3] == (1, 32, 48)
    classes = flaxnets.info(name).config.num_classes
    assert summary.rows[-1].output_shape == (1, classes)
    assert max(map(len, str(summary).splitlines())) <= 100


@pytest.mark.parametrize(
    "config",
    [
        flaxnets.DenseNetConfig(block_sizes=(2, 2), growth_rate=4, dropout=0.1),
        flaxnets.WideResNetConfig(depth=10, widen_factor=1, dropout=0.1),
    ],
)
def test_shapes_and_order_are_those_of_a_network_that_runs(config):
    """In evaluation mode, with a dropout that then does nothing but is a layer."""
    seen = []

    def note(path, module, call, *args):
        output = call(*args)
        if not any(True for inner, _ in nnx.iter_modules(module) if inner):
            seen.append((".".join(map(str, path)), output.shape))
        return output

    model = flaxnets.build(config, rngs=nnx.Rngs(0))
    rows = flaxnets.summary(model, (2, 16, 24, 3)).rows
    model.eval()
    with intercepted(model, note):
        jax.eval_shape(model, jnp.zeros((2, 16, 24, 3)))
    assert [(row.path, row.output_shape) for row in rows] == seen
    assert sum(row.kind == "Dropout 0.1" for row in rows) > 0


def test_known_layers_of_resnet50(no_draws):
    rows = {row.path: row for row in flaxnets.summary("resnet50", (1, 224, 224, 3)).rows}
    assert rows["conv1"].kind == "Conv 7x7, stride 2"
    assert rows["conv1"].output_shape == (1, 112, 112, 64)
    assert rows["conv1"].multiply_adds == 118_013_952
    assert rows["layer2.0.conv1"].output_shape == (1, 56, 56, 128)  # the 3x3 has the stride
    assert rows["layer2.0.conv2"].output_shape == (1, 28, 28, 128)
    assert rows["layer4.2.conv3"].output_shape == (1, 7, 7, 2048)
    assert rows["fc"].parameters == 2_049_000
    assert rows["fc"].multiply_adds == 2_048_000


def test_grouped_convolutions_count_their_own_channels_only(no_draws):
    rows = {row.path: row for row in flaxnets.summary("resnext50_32x4d", (1, 224, 224, 3)).rows}
    row = rows["layer1.0.conv2"]
    assert row.kind == "Conv 3x3, 32 groups"
    assert row.parameters == 9 * 4 * 128
    assert row.multiply_adds == 9 * 4 * 128 * 56 * 56


def test_batch_classes_and_dtype(no_draws):
    one = flaxnets.summary("resnet20")
    assert one.input_shape == (1, 32, 32, 3)
    many = flaxnets.summary("resnet20", (5, 32, 32, 3), num_classes=100)
    assert many.rows[-1].output_shape == (5, 100)
    assert many.multiply_adds == 5 * (one.multiply_adds + 90 * 64)
    assert many.parameters == one.parameters + 90 * 65
    half = nnx.eval_shape(lambda: flaxnets.create("resnet20", rngs=nnx.Rngs(0), dtype=jnp.bfloat16))
    assert flaxnets.summary(half).activation_bytes * 2 == one.activation_bytes
    assert flaxnets.summary(half).parameter_bytes == one.parameter_bytes


def test_a_network_without_classifier(no_draws):
    summary = flaxnets.summary("resnet20", num_classes=0)
    assert summary.rows[-1].path == "layer3.2.bn2"
    assert summary.parameters == 269_722 - 650


def test_nothing_is_allocated_for_a_name():
    flaxnets.summary("wrn_10_1")  # whatever is made once
    before = {id(array) for array in jax.live_arrays()}
    flaxnets.summary("wrn_16_1", (512, 32, 32, 3))
    assert {id(array) for array in jax.live_arrays()} <= before


def test_a_model_is_left_as_it_is():
    model = flaxnets.build(TINY, rngs=nnx.Rngs(0))
    graphdef, state = nnx.split(model)
    call = type(model.conv1).__dict__["__call__"]
    flaxnets.summary(model)
    assert nnx.split(model)[0] == graphdef
    assert model.bn1.use_running_average is False
    for (path, old), (_, new) in zip(
        nnx.to_flat_state(state), nnx.to_flat_state(nnx.state(model)), strict=True
    ):
        assert jnp.array_equal(old[...], new[...]), path
    assert type(model.conv1).__dict__["__call__"] is call


class Own(nnx.Module):
    """A module of one's own: Flax's layers, one of them called twice and one never."""

    def __init__(self) -> None:
        rngs = nnx.Rngs(0)
        self.conv = nnx.Conv(3, 4, (3, 5), strides=2, rngs=rngs)
        self.twice = nnx.Linear(4, 4, rngs=rngs)
        self.never = nnx.Linear(7, 1, rngs=rngs)
        self.scale = nnx.Param(jnp.ones(4))

    def __call__(self, x):
        return self.twice(self.twice(self.conv(x))) * self.scale[...]


def test_ones_own_modules():
    summary = flaxnets.summary(nnx.eval_shape(Own), (1, 8, 8, 3))
    assert [(row.path, row.parameters, row.multiply_adds) for row in summary.rows] == [
        ("conv", 15 * 3 * 4 + 4, 15 * 3 * 4 * 16),
        ("twice", 20, 16 * 16),
        ("twice", 0, 16 * 16),
        ("", 4, 0),
    ]
    assert summary.parameters == 184 + 20 + 8 + 4
    assert "8 of them in modules that are not called" in str(summary)
    assert "(the model)" in str(summary)


def test_a_single_layer():
    summary = flaxnets.summary(nnx.Linear(3, 5, rngs=nnx.Rngs(0)), (7, 3))
    assert [(row.kind, row.parameters, row.output_shape) for row in summary.rows] == [
        ("Linear", 20, (7, 5))
    ]
    assert summary.multiply_adds == 7 * 15


def test_text_and_json(no_draws):
    summary = flaxnets.summary("resnet20")
    lines = str(summary).splitlines()
    assert lines[0] == "resnet20 for an input of 1x32x32x3"
    assert len(lines) == 2 + 2 + len(summary.rows) + 1 + 3
    assert lines[4].split() == ["conv1", "Conv", "3x3", "1x32x32x16", "432", "442,368"]
    assert lines[-3] == "parameters     269,722 trainable; 1,395 in buffers; 1.03 MiB"
    assert lines[-2].startswith("multiply-adds  0.041 G in convolutions and linear layers")
    assert "1.48 MiB of outputs above, forward; 2.97 MiB with their gradients" in lines[-1]
    read = json.loads(json.dumps(summary.as_dict()))
    assert read["multiply_adds"] == 40_551_040
    assert read["activation_bytes"] == summary.activation_bytes
    assert math.prod(read["rows"][0]["output_shape"]) == 32 * 32 * 16


@pytest.mark.parametrize(
    ("arguments", "options", "message"),
    [
        (("resnet21",), {}, "no network named 'resnet21'; did you mean"),
        (("resnet20",), {"clases": 3}, "did you mean num_classes"),
        (("resnet20", (1, 3, 32, 32)), {}, r"images must be \(N, H, W, 3\)"),
        (("resnet20", (1, 0, 32, 3)), {}, "positive whole numbers"),
        (("densenet_40_12", (1, 2, 2, 3)), {}, "too small for 2x2 average pooling"),
        ((nnx.Linear(3, 5, rngs=nnx.Rngs(0)), (1, 3)), {"num_classes": 3}, "a network's name"),
    ],
)
def test_what_is_refused(arguments, options, message):
    with pytest.raises(ValueError, match=message):
        flaxnets.summary(*arguments, **options)
