import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.layers import Layers
from flaxnets.pooling import max_pool_3x3_stride_2
from flaxnets.resnet import ResidualBlock, ResNet, ResNetConfig, cifar_resnet
from flaxnets.shortcuts import SHORTCUTS, PadShortcut, make_shortcut


def tiny(**options: object) -> ResNetConfig:
    defaults = {
        "stage_sizes": (2, 1),
        "widths": (4, 8),
        "stem": "cifar",
        "stem_width": 4,
        "num_classes": 3,
    }
    return ResNetConfig(**(defaults | options))


def blocks(model: ResNet) -> dict[str, ResidualBlock]:
    return {
        ".".join(path): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, ResidualBlock)
    }


def abstract(config: ResNetConfig) -> ResNet:
    return nnx.eval_shape(lambda: flaxnets.build(config, rngs=nnx.Rngs(0)))


# Config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "bottelneck"}, r"block='bottelneck' is not one of basic, bottleneck.*mean bott"),
        ({"stem": "cifar10"}, r"stem='cifar10' is not one of imagenet, cifar \(did you mean cifar"),
        ({"shortcut": "zero_pad"}, r"shortcut='zero_pad' is not one.*did you mean zero_pad_"),
        ({"shortcut": "A"}, r"shortcut='A' is not one of .*projection_biased$"),
        ({"project": "always"}, r"project='always' is not one of on_change, first_of_stage, every"),
        ({"init": "fan_avg"}, r"init='fan_avg' is not one of fan_out.*did you mean fan_"),
        ({"dropout": -0.1}, r"dropout=-0\.1 must be a probability in \[0, 1\)"),
        ({"dropout": 1.0}, r"dropout=1\.0 must be a probability in \[0, 1\)"),
        ({"dropout": float("nan")}, r"dropout=nan must be a probability"),
        ({"dropout": "0.5"}, r"dropout='0\.5' must be a probability"),
        ({"stage_sizes": (2, 2, 2)}, r"stage_sizes=\(2, 2, 2\) and widths=\(4, 8\) must name as m"),
        ({"stage_sizes": (2, 0)}, r"stage_sizes=\(2, 0\) must be positive whole numbers"),
        ({"stage_sizes": (), "widths": ()}, r"stage_sizes=\(\) must be positive whole numbers"),
        ({"widths": (4, 8.0)}, r"widths=\(4, 8\.0\) must be positive whole numbers"),
        ({"stem_width": -4}, r"stem_width=-4 must be positive"),
        ({"num_classes": -1}, r"num_classes=-1 must be a positive whole number, or 0 for a netw"),
        ({"num_classes": True}, r"num_classes=True must be a positive whole number"),
        ({"groups": 2}, r"groups=2 needs block='bottleneck'"),
        ({"groups": 0, "block": "bottleneck"}, r"groups=0 must be positive whole numbers"),
        ({"groups": 2.0, "block": "bottleneck"}, r"groups=2\.0 must be positive whole numbers"),
        ({"bottleneck_width": 2.0}, r"bottleneck_width=2\.0 needs block='bottleneck'"),
        (
            {"block": "bottleneck", "bottleneck_width": 0.1},
            r"bottleneck_width=0\.1 leaves no channel of 4",
        ),
        (
            {"widths": (8, 4), "shortcut": "zero_pad_end"},
            r"'zero_pad_end' can only add channels.*\(4, 8, 4\).*use shortcut='projection'",
        ),
        (
            {"stem_width": 16, "shortcut": "avg_pool_pad"},
            r"'avg_pool_pad' can only add channels.*\(16, 4, 8\)",
        ),
    ],
)
def test_invalid_configs(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("depth", "near"),
    [(21, (20, 26)), (19, (14, 20)), (2, (8, 14)), (-4, (8, 14)), (1203, (1202, 1208))],
)
def test_cifar_depths_are_6n_plus_2(depth: int, near: tuple[int, int]) -> None:
    rule = f"depth must be 6n+2 with n >= 1, got {depth}; the nearest valid depths are {near[0]} "
    with pytest.raises(ValueError, match=re.escape(rule) + f"and {near[1]}$"):
        cifar_resnet(depth)
    for valid in near:
        assert cifar_resnet(valid).stage_sizes == ((valid - 2) // 6,) * 3


@pytest.mark.parametrize(("depth", "near"), [(110, 12), (164, 18), (1001, 111)])
def test_cifar_depths_with_bottlenecks_are_9n_plus_2(depth: int, near: int) -> None:
    assert cifar_resnet(depth, block="bottleneck").stage_sizes == (near,) * 3
    message = re.escape(f"9n+2 with n >= 1, got {depth + 6}; the nearest valid depths are {depth} ")
    with pytest.raises(ValueError, match=message):
        cifar_resnet(depth + 6, block="bottleneck")


@pytest.mark.parametrize(
    ("groups", "factor", "inner"), [(1, 1.0, 16), (2, 0.5, 16), (4, 0.25, 16), (3, 0.3, 12)]
)
def test_groups_of_bottlenecks(groups: int, factor: float, inner: int) -> None:
    """The factor is on the width of one group: rounded down before it is multiplied."""
    config = tiny(block="bottleneck", widths=(8, 16), groups=groups, bottleneck_width=factor)
    block = blocks(abstract(config))["layer2.0"]
    assert block.conv1.kernel.shape == (1, 1, 32, inner)
    assert block.conv2.kernel.shape == (3, 3, inner // groups, inner)
    assert block.conv3.kernel.shape == (1, 1, inner, 64)
    assert [block.conv1.groups, block.conv2.groups, block.conv3.groups] == [1, groups, 1]
    assert block.downsample[0].groups == 1


def test_widths_may_shrink_with_a_projection(output_shapes: Callable) -> None:
    assert output_shapes(tiny(widths=(8, 4)), 2, 8, 8)["stage2"] == (2, 4, 4, 4)


# Structure


@pytest.mark.parametrize(
    ("block", "project", "expected"),
    [
        ("basic", "on_change", ["layer2.0"]),
        ("basic", "first_of_stage", ["layer1.0", "layer2.0"]),
        ("basic", "every_block", ["layer1.0", "layer1.1", "layer2.0"]),
        ("bottleneck", "on_change", ["layer1.0", "layer2.0"]),
        ("bottleneck", "every_block", ["layer1.0", "layer1.1", "layer2.0"]),
    ],
)
@pytest.mark.parametrize("shortcut", ["projection", "zero_pad_end"])
def test_which_blocks_have_a_shortcut(
    block: str, project: str, expected: list[str], shortcut: str
) -> None:
    model = abstract(tiny(block=block, project=project, shortcut=shortcut))
    present = [name for name, block in blocks(model).items() if block.downsample is not None]
    assert sorted(present) == expected


@pytest.mark.parametrize(
    ("shortcut", "expected"),
    [
        ("projection", {"0.kernel": (1, 1, 4, 8), "1.scale": (8,), "1.bias": (8,)}),
        ("projection_biased", {"0.kernel": (1, 1, 4, 8), "0.bias": (8,)}),
        ("zero_pad_end", {}),
        ("zero_pad_both", {}),
        ("avg_pool_pad", {}),
    ],
)
def test_parameters_of_shortcuts(shortcut: str, expected: dict[str, tuple[int, ...]]) -> None:
    block = blocks(abstract(tiny(shortcut=shortcut)))["layer2.0"]
    state = nnx.to_flat_state(nnx.state(block.downsample, nnx.Param))
    assert {".".join(path): variable.shape for path, variable in state} == expected


def test_bottleneck_widths_and_strides() -> None:
    """The 3x3 carries the stride (v1.5); bottleneck_width acts inside only."""
    config = tiny(block="bottleneck", stem="imagenet", bottleneck_width=2.0)
    first = blocks(abstract(config))["layer2.0"]
    assert [first.conv1.stride, first.conv2.stride, first.conv3.stride] == [1, 2, 1]
    kernels = [conv.kernel.shape for conv in (first.conv1, first.conv2, first.conv3)]
    assert kernels == [(1, 1, 16, 16), (3, 3, 16, 16), (1, 1, 16, 32)]
    assert first.downsample[0].stride == 2
    half = blocks(abstract(tiny(block="bottleneck", bottleneck_width=0.6)))["layer2.0"]
    assert half.conv2.kernel.shape == (3, 3, 4, 4)  # 0.6 * 8 rounds down


def test_biases() -> None:
    for bias in (False, True):
        model = abstract(tiny(conv_bias=bias, shortcut="projection"))
        paths = nnx.to_flat_state(nnx.state(model, nnx.Param)).paths
        biased = sorted(
            ".".join(path) for path in paths if path[-1] == "bias" and "conv" in path[-2]
        )
        expected = ["conv1.bias"] + [
            f"{block}.conv{index}.bias"
            for block in ("layer1.0", "layer1.1", "layer2.0")
            for index in (1, 2)
        ]
        assert biased == (expected if bias else [])


# What it computes


def by_hand(model: ResNet, x: jax.Array) -> dict[str, jax.Array]:
    """The network written out, from its convolutions, norms and shortcuts."""
    relu = jax.nn.relu
    x = relu(model.bn1(model.conv1(x)))
    if model.config.stem == "imagenet":
        x = max_pool_3x3_stride_2(x)
    outputs = {"stem": x}
    for stage in (1, 2):
        for block in getattr(model, f"layer{stage}"):
            y = block.bn1(block.conv1(x))
            y = block.bn2(block.conv2(relu(y)))
            if model.config.block == "bottleneck":
                y = block.bn3(block.conv3(relu(y)))
            if block.dropout is not None:
                y = block.dropout(y)
            x = relu(y + (x if block.downsample is None else block.downsample(x)))
        outputs[f"stage{stage}"] = x
    outputs["pre_logits"] = x.mean((1, 2))
    outputs["logits"] = outputs["pre_logits"] @ model.fc.kernel + model.fc.bias
    return outputs


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.5, "conv_bias": True},
        {"block": "bottleneck", "stem": "imagenet", "project": "first_of_stage"},
    ],
)
def test_network_is_the_one_written_out(
    options: dict[str, object],
    images: Callable,
    randomize: Callable,
    forward: Callable,
    mark_dropout: Callable,
) -> None:
    """Dropout, replaced by a function that marks its place, comes just before the addition."""
    model = randomize(flaxnets.build(tiny(**options), rngs=nnx.Rngs(0)))
    model.eval()
    places = mark_dropout(model)
    assert places == (["layer1.0.dropout", "layer2.0.dropout"] if "dropout" in options else [])
    x = images(2, 9, 14)
    ours, expected = forward(model, x), forward(model, x, by_hand)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


# Shortcuts


def shortcut(kind: str, channels: tuple[int, int], stride: int) -> nnx.Module:
    return make_shortcut(kind, Layers("torch", nnx.Rngs(0)), *channels, stride)


def test_akamaster_pads_on_both_sides() -> None:
    """Channels 8 to 23 of 32 carry data: every second pixel, from the first."""
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 16)).astype(np.float32)
    y = np.asarray(shortcut("zero_pad_both", (16, 32), 2)(x))
    assert y.shape == (2, 3, 3, 32)
    np.testing.assert_array_equal(y[..., 8:24], x[:, ::2, ::2])
    assert not y[..., :8].any()
    assert not y[..., 24:].any()


def test_kellerjordan_pads_at_the_end() -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 6, 16)).astype(np.float32)
    y = np.asarray(shortcut("zero_pad_end", (16, 32), 2)(x))
    assert y.shape == (2, 3, 3, 32)
    np.testing.assert_array_equal(y[..., :16], x[:, ::2, ::2])
    assert not y[..., 16:].any()


def test_average_and_pad() -> None:
    x = np.arange(24, dtype=np.float32).reshape(1, 4, 6, 1)
    y = shortcut("avg_pool_pad", (1, 3), 2)(x)
    assert y.shape == (1, 2, 3, 3)
    assert y[0, :, :, 0].tolist() == [[3.5, 5.5, 7.5], [15.5, 17.5, 19.5]]
    assert not np.asarray(y[..., 1:]).any()


def test_an_odd_number_of_extra_channels() -> None:
    module = shortcut("zero_pad_both", (3, 8), 1)
    assert (module.before, module.after) == (2, 3)


@pytest.mark.parametrize("kind", ["zero_pad_end", "zero_pad_both", "avg_pool_pad"])
def test_padding_nothing_is_the_identity(kind: str) -> None:
    """Option C's place with option A's kind: blocks that change no shape."""
    x = jnp.arange(24.0).reshape(1, 2, 3, 4)
    module = shortcut(kind, (4, 4), 1)
    assert isinstance(module, PadShortcut)
    np.testing.assert_array_equal(module(x), x)


@pytest.mark.parametrize("kind", ["projection", "projection_biased"])
def test_projection_is_a_product_of_every_second_pixel(kind: str, randomize: Callable) -> None:
    x = np.random.default_rng(0).normal(size=(2, 5, 4, 3)).astype(np.float32)
    module = randomize(shortcut(kind, (3, 6), 2))
    module.eval()
    convolution = module[0]
    expected = x[:, ::2, ::2] @ np.asarray(convolution.kernel)[0, 0]
    if kind == "projection":
        norm = module[1]
        expected = (expected - np.asarray(norm.mean)) / np.sqrt(np.asarray(norm.var) + 1e-5)
        expected = expected * np.asarray(norm.scale) + np.asarray(norm.bias)
    else:
        expected = expected + np.asarray(convolution.bias)
        assert len(module) == 1
    np.testing.assert_allclose(module(x), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", SHORTCUTS)
def test_every_kind_fits_the_block(kind: str, output_shapes: Callable) -> None:
    assert output_shapes(tiny(shortcut=kind), 2, 8, 12)["stage2"] == (2, 4, 6, 8)


# Sizes


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        ((32, 32), [(32, 32), (32, 32), (16, 16)]),
        ((33, 31), [(33, 31), (33, 31), (17, 16)]),
        ((64, 64), [(64, 64), (64, 64), (32, 32)]),
        ((1, 2), [(1, 2), (1, 2), (1, 1)]),
    ],
)
def test_sizes_with_the_cifar_stem(
    size: tuple[int, int], maps: list[tuple[int, int]], output_shapes: Callable
) -> None:
    assert output_shapes(tiny(shortcut="zero_pad_both"), 2, *size) == {
        "stem": (2, *maps[0], 4),
        "stage1": (2, *maps[1], 4),
        "stage2": (2, *maps[2], 8),
        "pre_logits": (2, 8),
        "logits": (2, 3),
    }


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        ((224, 224), [(56, 56), (28, 28)]),
        ((64, 48), [(16, 12), (8, 6)]),
        ((65, 47), [(17, 12), (9, 6)]),
    ],
)
def test_sizes_with_the_imagenet_stem(
    size: tuple[int, int], maps: list[tuple[int, int]], output_shapes: Callable
) -> None:
    assert output_shapes(tiny(stem="imagenet", block="bottleneck"), 2, *size) == {
        "stem": (2, *maps[0], 4),
        "stage1": (2, *maps[0], 16),
        "stage2": (2, *maps[1], 32),
        "pre_logits": (2, 32),
        "logits": (2, 3),
    }


def test_named_stages(output_shapes: Callable) -> None:
    shapes = output_shapes(flaxnets.get_config("resnet20"), 2, 32, 32)
    assert shapes == {
        "stem": (2, 32, 32, 16),
        "stage1": (2, 32, 32, 16),
        "stage2": (2, 16, 16, 32),
        "stage3": (2, 8, 8, 64),
        "pre_logits": (2, 64),
        "logits": (2, 10),
    }
