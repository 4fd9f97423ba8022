from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

import torchref
from torchref.registry import RESNETS, TORCHVISION
from torchref.shortcuts import AvgPoolPad, ZeroPad


def torchvision_pair(name: str, **options: object) -> tuple[nn.Module, torchref.ResNet]:
    """Both networks of one configuration, torchvision's first, on meta tensors."""
    with torch.device("meta"):
        return torchref.create(name, **options), torchref.ResNet(**(RESNETS[name] | options))


@pytest.mark.parametrize("name", sorted(TORCHVISION & set(RESNETS)))
def test_state_dict_is_torchvisions(name: str) -> None:
    theirs, ours = torchvision_pair(name)
    assert isinstance(theirs, torchvision.models.ResNet)
    expected = {key: value.shape for key, value in theirs.state_dict().items()}
    state = {key: value.shape for key, value in ours.state_dict().items()}
    assert list(state.items()) == list(expected.items())


@pytest.mark.parametrize(
    ("name", "size", "training"),
    [
        ("resnet18", (65, 48), True),
        ("resnet50", (64, 48), False),
        ("wide_resnet50_2", (33, 40), False),
        ("resnext50_32x4d", (33, 40), False),
    ],
)
def test_outputs_are_torchvisions(
    randomize: Callable, images: Callable, name: str, size: tuple[int, int], training: bool
) -> None:
    theirs = randomize(torchref.create(name, num_classes=7)).train(training)
    _, ours = torchvision_pair(name, num_classes=7)
    state = {key: value.clone() for key, value in theirs.state_dict().items()}
    ours.load_state_dict(state, assign=True)
    ours.train(training)
    x = images(2, *size)
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(dict(ours.named_buffers()), dict(theirs.named_buffers()))


def shapes(**options: object) -> dict[str, tuple[int, ...]]:
    name = str(options.pop("name"))
    with torch.device("meta"):
        state = torchref.create(name, **options).state_dict()
    return {key: tuple(value.shape) for key, value in state.items()}


def test_cifar_names() -> None:
    state = shapes(name="resnet20")
    assert state["conv1.weight"] == (16, 3, 3, 3)
    assert state["layer3.2.conv2.weight"] == (64, 64, 3, 3)
    assert state["fc.weight"] == (10, 64)
    assert len(state) == 97 + 19  # akamaster's file has 97 entries, without num_batches_tracked
    assert not any("downsample" in key for key in state)


def test_cifar_projection_names() -> None:
    state = shapes(name="resnet20", shortcut="projection", num_classes=100)
    assert state["layer2.0.downsample.0.weight"] == (32, 16, 1, 1)
    assert state["layer2.0.downsample.1.running_mean"] == (32,)
    assert state["fc.weight"] == (100, 64)


def test_kellerjordan_names() -> None:
    state = shapes(name="kellerjordan_resnet20", shortcut="projection_biased")
    assert state["conv1.bias"] == (16,)
    assert state["layer2.0.conv1.bias"] == (32,)
    assert [key for key in state if "downsample" in key] == [
        f"layer{stage}.0.downsample.0.{leaf}" for stage in (2, 3) for leaf in ("weight", "bias")
    ]


@pytest.mark.parametrize(
    ("project", "stages"),
    [
        ("on_change", [[0], [0]]),
        ("first_of_stage", [[0], [0]]),
        ("every_block", [[0, 1], [0, 1]]),
    ],
)
def test_where_shortcuts_stand(project: str, stages: list[list[int]]) -> None:
    network = torchref.ResNet(stage_sizes=(2, 2, 2), widths=(64, 64, 64), project=project)
    found = [
        [index for index, block in enumerate(stage) if block.downsample is not None]
        for stage in (network.layer1, network.layer2, network.layer3)
    ]
    first = {"on_change": [], "first_of_stage": [0], "every_block": [0, 1]}[project]
    assert found == [first, *stages]


def test_first_edition_of_pytorch_book_projects_in_layer1() -> None:
    added = shapes(name="pytorch_book_resnet34_v1").items() - shapes(name="resnet34").items()
    assert {key for key, _ in added if key.endswith("weight")} == {
        "layer1.0.downsample.0.weight",
        "layer1.0.downsample.1.weight",
    }
    assert dict(added)["layer1.0.downsample.0.weight"] == (64, 64, 1, 1)


@pytest.mark.parametrize(
    ("shortcut", "kind"),
    [("zero_pad_both", ZeroPad), ("zero_pad_end", ZeroPad), ("avg_pool_pad", AvgPoolPad)],
)
def test_hooks_see_shortcuts_without_parameters(
    record: Callable, shortcut: str, kind: type[nn.Module]
) -> None:
    network = torchref.create("resnet20", shortcut=shortcut)
    seen = record(network, torch.zeros(1, 3, 8, 8))
    assert {name for name in seen if name.endswith("downsample")} == {
        "layer2.0.downsample",
        "layer3.0.downsample",
    }
    assert isinstance(network.layer2[0].downsample, kind)
    assert network.layer2[1].downsample is None


@pytest.mark.parametrize(("block", "last_norm"), [("basic", "bn2"), ("bottleneck", "bn3")])
def test_dropout_in_first_blocks_between_last_norm_and_addition(
    record: Callable, block: str, last_norm: str
) -> None:
    network = torchref.create("kellerjordan_resnet20", block=block, dropout=0.25)
    seen = record(network, torch.randn(2, 3, 16, 16))
    names = {name for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    assert names == {"layer1.0.dropout", "layer2.0.dropout", "layer3.0.dropout"}
    for stage in (1, 2, 3):
        name = f"layer{stage}.0"
        dropped_in, dropped_out = seen[f"{name}.dropout"]
        assert dropped_in is seen[f"{name}.{last_norm}"][1]
        zeroed = (dropped_out == 0).double().mean().item()
        assert abs(zeroed - 0.25) < 0.05
        x, out = seen[name]
        shortcut = network.get_submodule(name).downsample
        carried = x if shortcut is None else shortcut(x)
        torch.testing.assert_close(out, (dropped_out + carried).clamp(min=0))


def test_dropout_is_off_in_evaluation() -> None:
    network = torchref.create("kellerjordan_resnet20").eval()
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(network(x), network(x))


def test_bottleneck_has_its_stride_on_the_3x3() -> None:
    block = torchref.create("resnet50_cifar").layer2[0]
    assert [conv.stride for conv in (block.conv1, block.conv2, block.conv3)] == [
        (1, 1),
        (2, 2),
        (1, 1),
    ]


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (40, 23)])
def test_any_input_size(size: tuple[int, int]) -> None:
    assert torchref.create("resnet20")(torch.zeros(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"block": "botleneck"}, r"block must be one of basic, bottleneck.*nearest: bottleneck"),
        ({"stem": "mnist"}, "stem must be one of imagenet, cifar; got 'mnist'"),
        ({"shortcut": "zero_pad"}, r"shortcut must be one of .*nearest: zero_pad_end, zero_pad"),
        ({"project": "always"}, "project must be one of on_change, first_of_stage, every_block"),
        ({"init": "fan"}, "init must be one of fan_out, fan_out_zero_bias, fan_in, .*, torch"),
        ({"dropout": -0.1}, r"dropout is .* at least 0 \(none\) and below 1; got -0.1"),
        ({"dropout": 1.0}, "dropout is .* below 1; got 1.0"),
        ({"num_classes": -1}, "num_classes must be a whole number of at least 1, or 0 .*; got -1"),
        ({"groups": 2}, "groups must be 1 with basic blocks.* got 2"),
        ({"groups": 0, "block": "bottleneck"}, "groups must hold whole numbers .* got 0"),
        ({"stem_width": 1.5}, "stem_width must hold whole numbers of at least 1; got 1.5"),
        ({"stage_sizes": ()}, r"stage_sizes must hold whole numbers of at least 1; got \(\)"),
        ({"stage_sizes": (3, 0, 6, 3)}, r"stage_sizes must hold .* got \(3, 0, 6, 3\)"),
        ({"stage_sizes": (3, 4)}, r"must name as many stages; got \(3, 4\) and \(64, 128, 256"),
        ({"bottleneck_width": 2.0}, "bottleneck_width must be 1 with basic blocks.* got 2.0"),
        (
            {"block": "bottleneck", "bottleneck_width": 0.01},
            "bottleneck_width must leave at least one of 64 channels; got 0.01",
        ),
        ({"shortcut": "zero_pad_end", "stem_width": 65}, "output channels .* got 65 -> 64"),
    ],
)
def test_invalid_configuration(options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        torchref.ResNet(**options)
