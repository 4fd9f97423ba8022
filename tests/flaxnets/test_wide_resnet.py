from collections.abc import Callable

import jax
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.layers import BatchNorm
from flaxnets.preactivation import PreactivationBlock
from flaxnets.wide_resnet import WideResNet, WideResNetConfig


def tiny(**options: object) -> WideResNetConfig:
    """One basic block a stage, 16, 32 and 64 channels; bottlenecks stride where they must."""
    defaults = {"depth": 10, "widen_factor": 1, "num_classes": 3}
    if options.get("block") == "bottleneck":
        defaults["stride_on"] = "conv2"
    return WideResNetConfig(**(defaults | options))


def blocks(config: WideResNetConfig) -> dict[str, PreactivationBlock]:
    model = nnx.eval_shape(lambda: flaxnets.build(config, rngs=nnx.Rngs(0)))
    return {
        ".".join(path): module
        for path, module in nnx.iter_modules(model)
        if isinstance(module, PreactivationBlock)
    }


# Config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 27}, r"WRN \(basic blocks\) depth must be 6n\+4 .*got 27; .* are 22 and 28$"),
        ({"depth": 29}, r"depth must be 6n\+4 .*got 29; the nearest valid depths are 28 and 34$"),
        ({"depth": 4}, r"depth must be 6n\+4 with n >= 1, got 4; .* are 10 and 16$"),
        (
            {"depth": 28, "block": "bottleneck"},
            r"WRN \(bottleneck blocks\) depth must be 9n\+4 .*got 28; .* are 22 and 31$",
        ),
        ({"depth": 28.0}, r"depth=28\.0 must be positive whole numbers"),
        ({"depth": "28"}, r"depth='28' must be positive whole numbers"),
        ({"depth": -2}, r"depth=-2 must be positive"),
        ({"widen_factor": 0}, r"widen_factor=0 must be positive"),
        ({"widen_factor": 1.5}, r"widen_factor=1\.5 must be positive whole numbers"),
        ({"num_classes": -1}, r"num_classes=-1 must be a positive whole number, or 0 for a netw"),
        ({"num_classes": 10.0}, r"num_classes=10\.0 must be a positive whole number"),
        ({"block": "wide"}, r"block='wide' is not one of basic, bottleneck"),
        ({"projection_input": "active"}, r"'active' is not one of .*did you mean activated"),
        ({"dropout_before": "conv3"}, r"'conv3' is not one of conv2, bn2.*did you mean conv2"),
        ({"stride_on": "conv3"}, r"stride_on='conv3' is not one of conv1, conv2"),
        (
            {"depth": 13, "block": "bottleneck", "stride_on": "conv1"},
            r"block='bottleneck' halves .* 3x3 .* needs stride_on='conv2', got 'conv1'",
        ),
        ({"final_norm_momentum": 1.0}, r"final_norm_momentum=1\.0 must be in \[0, 1\)"),
        ({"final_norm_momentum": -0.1}, r"final_norm_momentum=-0\.1 must be in .*PyTorch"),
        ({"final_norm_momentum": "0.9"}, r"final_norm_momentum='0\.9' must be in"),
        ({"init": "torch_"}, r"init='torch_' is not one of .*did you mean torch"),
        ({"dropout": -0.3}, r"dropout=-0\.3 must be a probability in \[0, 1\)"),
        ({"dropout": 1.0}, r"dropout=1\.0 must be a probability"),
    ],
)
def test_invalid_configs(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("depth", "block", "count"),
    [
        (10, "basic", 1),
        (28, "basic", 4),
        (40, "basic", 6),
        (13, "bottleneck", 1),
        (31, "bottleneck", 3),
    ],
)
def test_blocks_of_a_stage(depth: int, block: str, count: int) -> None:
    config = tiny(depth=depth, block=block)
    assert config.blocks_per_stage == count
    expected = [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in range(count)]
    assert sorted(blocks(config)) == sorted(expected)


# Structure


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"depth": 16}, ["layer2.0", "layer3.0"]),
        ({"depth": 16, "widen_factor": 2}, ["layer1.0", "layer2.0", "layer3.0"]),
        ({"depth": 22, "block": "bottleneck"}, ["layer1.0", "layer2.0", "layer3.0"]),
    ],
)
def test_which_blocks_have_a_projection(options: dict[str, object], expected: list[str]) -> None:
    """Those that change the shape; with widen_factor 1 the first stage does not."""
    made = blocks(tiny(**options))
    present = {name: block.downsample for name, block in made.items() if block.downsample}
    assert sorted(present) == expected
    for projection in present.values():
        (path,) = nnx.to_flat_state(nnx.state(projection, nnx.Param)).paths
        assert path == ("0", "kernel")  # neither bias nor norm


def test_basic_block() -> None:
    block = blocks(tiny(widen_factor=3))["layer2.0"]
    assert block.bn1.scale.shape == (48,)
    assert block.conv1.kernel.shape == (3, 3, 48, 96)
    assert block.conv2.kernel.shape == (3, 3, 96, 96)
    assert block.downsample[0].kernel.shape == (1, 1, 48, 96)
    assert [block.conv1.stride, block.conv2.stride, block.downsample[0].stride] == [2, 1, 2]


def test_the_stride_may_sit_on_the_second_convolution() -> None:
    block = blocks(tiny(stride_on="conv2"))["layer2.0"]
    assert [block.conv1.stride, block.conv2.stride, block.downsample[0].stride] == [1, 2, 2]


@pytest.mark.parametrize("conv_bias", [False, True])
def test_biases_are_on_every_convolution_or_on_none(conv_bias: bool) -> None:
    model = nnx.eval_shape(
        lambda: flaxnets.build(tiny(widen_factor=2, conv_bias=conv_bias), rngs=nnx.Rngs(0))
    )
    paths = nnx.to_flat_state(nnx.state(model, nnx.Param)).paths
    kernels = {path[:-1] for path in paths if path[-1] == "kernel"}
    biases = {path[:-1] for path in paths if path[-1] == "bias"}
    assert len(kernels) == 1 + 3 * 3 + 1  # stem, three blocks with projections, classifier
    assert kernels & biases == (kernels if conv_bias else {("fc",)})


def test_only_the_last_norm_has_a_momentum_of_its_own() -> None:
    model = nnx.eval_shape(lambda: flaxnets.build(tiny(final_norm_momentum=0.1), rngs=nnx.Rngs(0)))
    momenta = {
        ".".join(path): module.momentum
        for path, module in nnx.iter_modules(model)
        if isinstance(module, BatchNorm)
    }
    assert momenta.pop("bn1") == 0.1
    assert set(momenta.values()) == {0.9}
    assert len(momenta) == 6


def test_bottleneck_block_is_wide_only_inside() -> None:
    block = blocks(tiny(depth=13, block="bottleneck", widen_factor=3))["layer2.0"]
    assert block.conv1.kernel.shape == (1, 1, 64, 96)
    assert block.conv2.kernel.shape == (3, 3, 96, 96)
    assert block.conv3.kernel.shape == (1, 1, 96, 128)
    assert [block.conv1.stride, block.conv2.stride, block.conv3.stride] == [1, 2, 1]
    assert block.bn3.scale.shape == (96,)
    assert not hasattr(blocks(tiny())["layer2.0"], "conv3")


# What it computes


def by_hand(model: WideResNet, x: jax.Array) -> dict[str, jax.Array]:
    """The network written out, from its norms and convolutions."""
    relu, config = jax.nn.relu, model.config

    def drop(block: PreactivationBlock, y: jax.Array) -> jax.Array:
        return y if block.dropout is None else block.dropout(y)

    x = model.conv1(x)
    outputs = {"stem": x}
    for stage in (1, 2, 3):
        for block in getattr(model, f"layer{stage}"):
            activated = relu(block.bn1(x))
            y = block.conv1(activated)
            if config.dropout_before == "bn2":
                y = drop(block, y)
            y = relu(block.bn2(y))
            if config.block == "bottleneck":
                y = relu(block.bn3(block.conv2(y)))
            if config.dropout_before == "conv2":
                y = drop(block, y)
            y = (block.conv3 if config.block == "bottleneck" else block.conv2)(y)
            if block.downsample is not None:
                x = block.downsample(activated if config.projection_input == "activated" else x)
            x = x + y
        outputs[f"stage{stage}"] = x
    outputs["pre_logits"] = relu(model.bn1(x)).mean((1, 2))
    outputs["logits"] = outputs["pre_logits"] @ model.fc.kernel + model.fc.bias
    return outputs


@pytest.mark.parametrize(
    "options",
    [
        {"dropout": 0.3},
        {"dropout": 0.3, "dropout_before": "bn2", "projection_input": "raw"},
        {"dropout": 0.3, "depth": 13, "block": "bottleneck"},
    ],
    ids=["paper", "tutorial", "bottleneck"],
)
def test_network_is_the_one_written_out(
    options: dict[str, object],
    images: Callable,
    randomize: Callable,
    forward: Callable,
    mark_dropout: Callable,
) -> None:
    """Every block drops, at the place where a function that marks it stands here."""
    model = randomize(flaxnets.build(tiny(**options), rngs=nnx.Rngs(0)))
    model.eval()
    assert mark_dropout(model) == [f"layer{stage}.0.dropout" for stage in (1, 2, 3)]
    x = images(2, 7, 6)
    ours, expected = forward(model, x), forward(model, x, by_hand)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-4, atol=1e-4, err_msg=name)


# Sizes


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        ((32, 32), [(32, 32), (16, 16), (8, 8)]),
        ((33, 31), [(33, 31), (17, 16), (9, 8)]),
        ((64, 64), [(64, 64), (32, 32), (16, 16)]),
        ((1, 3), [(1, 3), (1, 2), (1, 1)]),
    ],
)
@pytest.mark.parametrize(("block", "depth", "factor"), [("basic", 10, 2), ("bottleneck", 13, 4)])
def test_sizes(
    size: tuple[int, int],
    maps: list[tuple[int, int]],
    block: str,
    depth: int,
    factor: int,
    output_shapes: Callable,
) -> None:
    """Outputs of a bottleneck are 4 times as wide as the unwidened stage, whatever the factor."""
    config = tiny(depth=depth, block=block, widen_factor=2)
    assert config.stride_on == ("conv1" if block == "basic" else "conv2")
    assert output_shapes(config, 2, *size) == {
        "stem": (2, *maps[0], 16),
        "stage1": (2, *maps[0], 16 * factor),
        "stage2": (2, *maps[1], 32 * factor),
        "stage3": (2, *maps[2], 64 * factor),
        "pre_logits": (2, 64 * factor),
        "logits": (2, 3),
    }
