import re
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import flaxnets
from flaxnets.preact_resnet import PreActResNet, PreActResNetConfig, cifar_preact_resnet
from flaxnets.preactivation import PreactivationBlock


def tiny(**options: object) -> PreActResNetConfig:
    defaults = {"stage_sizes": (2, 1), "widths": (4, 8), "stem_width": 4, "num_classes": 3}
    return PreActResNetConfig(**(defaults | options))


def abstract(config: PreActResNetConfig) -> PreActResNet:
    return nnx.eval_shape(lambda: flaxnets.build(config, rngs=nnx.Rngs(0)))


def blocks(config: PreActResNetConfig) -> dict[str, PreactivationBlock]:
    return {
        ".".join(path): module
        for path, module in nnx.iter_modules(abstract(config))
        if isinstance(module, PreactivationBlock)
    }


# Config


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "botleneck"}, r"block='botleneck' is not one of basic, bottleneck.*mean bottl"),
        ({"shortcut": "zero_pad_both"}, r"'zero_pad_both' is not one of projection, zero_pad_end"),
        ({"shortcut_input": "active"}, r"'active' is not one of raw, activated, activated_first"),
        ({"stride_on": "conv3"}, r"stride_on='conv3' is not one of conv1, conv2"),
        ({"init": "he"}, r"init='he' is not one of fan_out"),
        ({"stage_sizes": (2,)}, r"stage_sizes=\(2,\) and widths=\(4, 8\) must name as many stages"),
        ({"stage_sizes": (2, 0)}, r"stage_sizes=\(2, 0\) must be positive whole numbers"),
        ({"widths": [4, 8]}, r"widths=\[4, 8\] must be positive whole numbers .*in a tuple"),
        ({"stem_width": 0}, r"stem_width=0 must be positive"),
        ({"num_classes": -1}, r"num_classes=-1 must be a positive whole number, or 0 for a netw"),
        (
            {"widths": (8, 4), "shortcut": "zero_pad_end"},
            r"'zero_pad_end' can only add channels.*\(4, 8, 4\).*use shortcut='projection'",
        ),
    ],
)
def test_invalid_configs(options: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(**options)


@pytest.mark.parametrize(
    ("depth", "block", "rule", "near"),
    [
        (111, "basic", "basic blocks) depth must be 6n+2", (110, 116)),
        (165, "bottleneck", "bottleneck blocks) depth must be 9n+2", (164, 173)),
        (1002, "bottleneck", "bottleneck blocks) depth must be 9n+2", (1001, 1010)),
    ],
)
def test_depths(depth: int, block: str, rule: str, near: tuple[int, int]) -> None:
    message = f"{rule} with n >= 1, got {depth}; the nearest valid depths are {near[0]} and"
    with pytest.raises(ValueError, match=re.escape(message)):
        cifar_preact_resnet(depth, block=block)
    for valid in near:
        config = cifar_preact_resnet(valid, block=block)
        assert config.stage_sizes == ((valid - 2) // (6 if block == "basic" else 9),) * 3
        assert (config.widths, config.stem_width) == ((16, 32, 64), 16)


def test_defaults_of_the_thin_form() -> None:
    basic, bottleneck = (cifar_preact_resnet(110, block=b) for b in ("basic", "bottleneck"))
    assert (basic.shortcut, bottleneck.shortcut) == ("zero_pad_end", "projection")
    assert basic.shortcut_input == "activated_first"
    assert basic.final_norm
    assert not basic.stem_norm
    assert cifar_preact_resnet(110, shortcut="projection").shortcut == "projection"


# Structure


def test_names_with_every_norm_and_bias() -> None:
    config = tiny(stage_sizes=(1, 1), stem_norm=True, conv_bias=True)
    paths = {".".join(p) for p in nnx.to_flat_state(nnx.state(abstract(config), nnx.Param)).paths}
    norms = ["bn0", "bn1", *(f"layer{s}.0.bn{i}" for s in (1, 2) for i in (1, 2))]
    convolutions = ["conv1", *(f"layer{s}.0.conv{i}" for s in (1, 2) for i in (1, 2))]
    assert paths == {
        *(f"{norm}.{leaf}" for norm in norms for leaf in ("scale", "bias")),
        *(
            f"{name}.{leaf}"
            for name in (*convolutions, "layer2.0.downsample.0", "fc")
            for leaf in ("kernel", "bias")
        ),
    }
    assert abstract(config).bn0.scale.shape == (4,)
    assert abstract(config).bn1.scale.shape == (8,)
    bare = abstract(tiny(final_norm=False))
    assert bare.bn0 is None
    assert bare.bn1 is None


@pytest.mark.parametrize(
    ("block", "stride_on", "strides"),
    [
        ("basic", "conv1", [2, 1]),
        ("basic", "conv2", [1, 2]),
        ("bottleneck", "conv1", [2, 1, 1]),
        ("bottleneck", "conv2", [1, 2, 1]),
    ],
)
def test_where_the_stride_is(block: str, stride_on: str, strides: list[int]) -> None:
    made = blocks(tiny(block=block, stride_on=stride_on))
    halving = made["layer2.0"]
    convolutions = [getattr(halving, f"conv{i}") for i in range(1, len(strides) + 1)]
    assert [convolution.stride for convolution in convolutions] == strides
    assert halving.downsample[0].stride == 2
    assert {made[name].conv1.stride for name in ("layer1.0", "layer1.1")} == {1}


@pytest.mark.parametrize(
    ("options", "projected"),
    [({}, ["layer2.0"]), ({"block": "bottleneck"}, ["layer1.0", "layer2.0"])],
)
def test_which_blocks_have_a_shortcut(options: dict[str, object], projected: list[str]) -> None:
    made = blocks(tiny(**options))
    assert sorted(name for name, block in made.items() if block.downsample) == projected
    for name in projected:
        (path,) = nnx.to_flat_state(nnx.state(made[name].downsample, nnx.Param)).paths
        assert path == ("0", "kernel")  # neither bias nor norm
    padded = blocks(tiny(**options, shortcut="zero_pad_end"))
    assert sorted(name for name, block in padded.items() if block.downsample) == projected
    assert not nnx.to_flat_state(nnx.state(padded["layer2.0"].downsample)).paths


# What it computes


def by_hand(model: PreActResNet, x: jax.Array) -> dict[str, jax.Array]:
    """The network written out, from its norms and convolutions."""
    relu, config = jax.nn.relu, model.config
    x = model.conv1(x)
    if config.stem_norm:
        x = relu(model.bn0(x))
    outputs = {"stem": x}
    for stage in range(1, len(config.widths) + 1):
        for index, block in enumerate(getattr(model, f"layer{stage}")):
            activated = relu(block.bn1(x))
            y = relu(block.bn2(block.conv1(activated)))
            y = block.conv2(y)
            if config.block == "bottleneck":
                y = block.conv3(relu(block.bn3(y)))
            changes = y.shape != x.shape
            shares = {
                "raw": False,
                "activated": changes,
                "activated_first": index == 0,
            }
            carried = activated if shares[config.shortcut_input] else x
            if changes and config.shortcut == "projection":
                carried = block.downsample[0](carried)
            elif changes:
                step = x.shape[1] // y.shape[1]
                carried = carried[:, ::step, ::step]
                zeros = jnp.zeros((*y.shape[:3], y.shape[3] - x.shape[3]), y.dtype)
                carried = jnp.concatenate([carried, zeros], axis=-1)
            x = y + carried
        outputs[f"stage{stage}"] = x
    x = relu(model.bn1(x)) if config.final_norm else x
    outputs["pre_logits"] = x.mean((1, 2))
    outputs["logits"] = outputs["pre_logits"] @ model.fc.kernel + model.fc.bias
    return outputs


@pytest.mark.parametrize(
    "options",
    [
        {"shortcut": "zero_pad_end", "shortcut_input": "activated_first"},
        {"shortcut": "zero_pad_end", "shortcut_input": "raw", "block": "bottleneck"},
        {"shortcut_input": "activated", "final_norm": False, "stride_on": "conv2"},
        {"shortcut_input": "raw", "stem_norm": True, "conv_bias": True, "final_norm": False},
    ],
    ids=["fb.resnet.torch", "raw padding", "kuangliu", "weiaicunzai"],
)
def test_network_is_the_one_written_out(
    options: dict[str, object], images: Callable, randomize: Callable, forward: Callable
) -> None:
    model = randomize(flaxnets.build(tiny(**options), rngs=nnx.Rngs(0)))
    model.eval()
    x = images(2, 8, 6)
    ours, expected = forward(model, x), forward(model, x, by_hand)
    assert ours.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(ours[name], value, rtol=1e-5, atol=1e-5, err_msg=name)


def test_activated_first_differs_where_the_first_stage_keeps_its_shape(
    images: Callable, randomize: Callable, forward: Callable
) -> None:
    """Only there: with bottlenecks every first block changes its shape."""

    def outputs(**options: object) -> np.ndarray:
        model = randomize(flaxnets.build(tiny(stage_sizes=(1, 1), **options), rngs=nnx.Rngs(0)))
        model.eval()
        return np.asarray(forward(model, images(1, 4, 4))["logits"])

    first, changed = (outputs(shortcut_input=read) for read in ("activated_first", "activated"))
    assert np.abs(first - changed).max() > 1e-2
    alike = [
        outputs(shortcut_input=read, block="bottleneck")
        for read in ("activated_first", "activated")
    ]
    np.testing.assert_array_equal(*alike)


# Sizes


@pytest.mark.parametrize(
    ("size", "maps"),
    [
        ((32, 32), [(32, 32), (16, 16)]),
        ((33, 31), [(33, 31), (17, 16)]),
        ((1, 3), [(1, 3), (1, 2)]),
    ],
)
@pytest.mark.parametrize(("block", "factor"), [("basic", 1), ("bottleneck", 4)])
def test_sizes(
    size: tuple[int, int],
    maps: list[tuple[int, int]],
    block: str,
    factor: int,
    output_shapes: Callable,
) -> None:
    assert output_shapes(tiny(block=block), 2, *size) == {
        "stem": (2, *maps[0], 4),
        "stage1": (2, *maps[0], 4 * factor),
        "stage2": (2, *maps[1], 8 * factor),
        "pre_logits": (2, 8 * factor),
        "logits": (2, 3),
    }
