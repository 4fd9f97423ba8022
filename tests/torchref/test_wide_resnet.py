from collections.abc import Callable

import pytest
import torch
from torch import nn

import torchref

TINY = {"depth": 10, "widen_factor": 2}
TINY_BOTTLENECK = {"depth": 13, "widen_factor": 2, "block": "bottleneck", "stride_on": "conv2"}
TINY_LATE = TINY | {"stride_on": "conv2"}


def shapes(**options: object) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        state = torchref.WideResNet(**options).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def test_names_and_shapes() -> None:
    state = shapes(depth=28, widen_factor=10)
    assert state["conv1.weight"] == (16, 3, 3, 3)
    assert state["layer1.0.bn1.weight"] == (16,)
    assert state["layer1.0.conv1.weight"] == (160, 16, 3, 3)
    assert state["layer2.0.downsample.0.weight"] == (320, 160, 1, 1)
    assert state["layer3.3.conv2.weight"] == (640, 640, 3, 3)
    assert state["bn1.running_mean"] == (640,)
    assert state["fc.weight"] == (10, 640)
    assert [key for key in state if "downsample" in key] == [
        f"layer{stage}.0.downsample.0.weight" for stage in (1, 2, 3)
    ]


def test_unwidened_network_has_no_projection_in_layer1() -> None:
    state = shapes(depth=16, widen_factor=1)
    assert [key for key in state if "downsample" in key] == [
        "layer2.0.downsample.0.weight",
        "layer3.0.downsample.0.weight",
    ]


def test_only_the_inside_of_a_bottleneck_is_widened() -> None:
    state = shapes(depth=22, widen_factor=3, block="bottleneck", stride_on="conv2")
    assert state["layer1.0.conv1.weight"] == (48, 16, 1, 1)
    assert state["layer1.0.conv2.weight"] == (48, 48, 3, 3)
    assert state["layer1.0.conv3.weight"] == (64, 48, 1, 1)
    assert state["layer1.0.downsample.0.weight"] == (64, 16, 1, 1)
    assert state["layer3.1.bn3.bias"] == (192,)
    assert state["fc.weight"] == (10, 256)
    assert len([key for key in state if key.endswith("conv3.weight")]) == 6


@pytest.mark.parametrize(
    ("options", "strided"),
    [(TINY, "conv1"), (TINY_LATE, "conv2"), (TINY_BOTTLENECK, "conv2")],
    ids=str,
)
def test_where_the_stride_is(options: dict, strided: str) -> None:
    network = torchref.WideResNet(**options)
    found = {
        name
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d) and module.stride == (2, 2)
    }
    expected = {
        f"layer{stage}.0.{layer}" for stage in (2, 3) for layer in (strided, "downsample.0")
    }
    assert found == expected


@pytest.mark.parametrize("options", [TINY, TINY_BOTTLENECK], ids=str)
@pytest.mark.parametrize("projection_input", ["activated", "raw"])
def test_what_the_projection_reads(record: Callable, options: dict, projection_input: str) -> None:
    network = torchref.WideResNet(**options, projection_input=projection_input)
    seen = record(network, torch.randn(2, 3, 16, 16))
    for stage in (1, 2, 3):
        block = f"layer{stage}.0"
        x = seen[block][0]
        expected = x if projection_input == "raw" else seen[f"{block}.bn1"][1].clamp(min=0)
        assert torch.equal(seen[f"{block}.downsample"][0], expected)


@pytest.mark.parametrize(
    ("options", "after", "before"),
    [
        (TINY, "relu bn2", "conv2"),
        (TINY | {"dropout_before": "bn2"}, "conv1", "bn2"),
        (TINY_BOTTLENECK, "relu bn3", "conv3"),
        (TINY_BOTTLENECK | {"dropout_before": "bn2"}, "conv1", "bn2"),
    ],
    ids=str,
)
def test_where_dropout_sits(record: Callable, options: dict, after: str, before: str) -> None:
    network = torchref.WideResNet(**(options | {"depth": 2 * options["depth"] - 4}), dropout=0.3)
    names = {name for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    blocks = [f"layer{stage}.{index}" for stage in (1, 2, 3) for index in (0, 1)]
    assert names == {f"{block}.dropout" for block in blocks}

    seen = record(network, torch.randn(2, 3, 16, 16))
    for block in blocks:
        dropped_in, dropped_out = seen[f"{block}.dropout"]
        source = seen[f"{block}.{after.removeprefix('relu ')}"][1]
        assert torch.equal(dropped_in, source.clamp(min=0) if "relu" in after else source)
        assert seen[f"{block}.{before}"][0] is dropped_out
        kept = dropped_in != 0
        assert abs((dropped_out[kept] == 0).double().mean().item() - 0.3) < 0.08


def test_meliketoys_biases_and_last_momentum() -> None:
    with torch.device("meta"):
        network = torchref.create("meliketoy_wrn_16_8", depth=10)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 1 + 6 + 3
    assert all(convolution.bias is not None for convolution in convolutions)
    norms = [m for m in network.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [norm.momentum for norm in norms[:-1]] == [0.1] * 6
    assert norms[-1] is network.bn1
    assert network.bn1.momentum == 0.9
    assert torchref.WideResNet(**TINY).bn1.momentum == pytest.approx(0.1, abs=1e-15)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (40, 23)])
def test_any_input_size(size: tuple[int, int]) -> None:
    assert torchref.WideResNet(**TINY)(torch.zeros(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 27}, r"basic blocks is 6n\+4 .* got 27 \(nearest valid: 22 and 28\)"),
        ({"depth": 4}, r"6n\+4 with n >= 1; got 4 \(nearest valid: 10 and 16\)"),
        (
            {"depth": 28, "block": "bottleneck", "stride_on": "conv2"},
            r"bottleneck blocks is 9n\+4 .* got 28 \(nearest valid: 22 and 31\)",
        ),
        ({"depth": 28.0}, "depth must hold whole numbers"),
        ({"widen_factor": 0}, "widen_factor must hold whole numbers of at least 1; got 0"),
        ({"block": "wide"}, "block must be one of basic, bottleneck; got 'wide'"),
        ({"projection_input": "activate"}, "activated, raw.*nearest: activated"),
        ({"dropout_before": "conv3"}, "dropout_before must be one of conv2, bn2.*nearest: conv2"),
        ({"dropout": -0.3}, "dropout is .* got -0.3"),
        ({"num_classes": True}, "num_classes must be a whole number of at least 1, or 0.*True"),
        ({"stride_on": "conv3"}, "stride_on must be one of conv1, conv2"),
        (
            {"depth": 13, "block": "bottleneck"},
            "stride_on must be conv2, the 3x3, with bottleneck blocks; got 'conv1'",
        ),
        ({"final_norm_momentum": 1.0}, "final_norm_momentum is .* below 1; got 1.0"),
        ({"init": "glorot"}, "init must be one of"),
    ],
)
def test_invalid_configuration(options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        torchref.WideResNet(**options)
