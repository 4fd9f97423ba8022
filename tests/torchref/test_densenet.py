from collections.abc import Callable

import pytest
import torch
import torchvision
from torch import nn

import torchref
from torchref.densenet import TorchvisionDenseNet

DENSENET_121 = {
    "block_sizes": (6, 12, 24, 16),
    "growth_rate": 32,
    "stem_width": 64,
    "stem": "imagenet",
    "num_classes": 1000,
}
TINY = {"block_sizes": (2, 1, 1), "growth_rate": 4, "stem_width": 6}


def shapes(network: nn.Module) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in network.state_dict().items()}


def test_state_dict_is_torchvisions_without_its_prefix() -> None:
    with torch.device("meta"):
        theirs = torchvision.models.densenet121(weights=None)
        ours = torchref.DenseNet(**DENSENET_121)
    expected = {key.removeprefix("features."): shape for key, shape in shapes(theirs).items()}
    assert list(shapes(ours).items()) == list(expected.items())


@pytest.mark.parametrize("training", [False, True])
def test_outputs_are_torchvisions(randomize: Callable, images: Callable, training: bool) -> None:
    theirs = torchvision.models.DenseNet(8, (2, 3, 2), 12, num_classes=7)
    # torchvision numbers its norm5 whatever the number of blocks, as this package does
    ours = torchref.DenseNet(
        block_sizes=(2, 3, 2), growth_rate=8, stem_width=12, stem="imagenet", num_classes=7
    )
    state = randomize(theirs).state_dict()
    ours.double().load_state_dict(
        {key.removeprefix("features."): value for key, value in state.items()}
    )
    x = images(2, 65, 48)
    with torch.no_grad():
        expected = theirs.train(training)(x)
        torch.testing.assert_close(ours.train(training)(x), expected, rtol=1e-10, atol=1e-12)


def test_named_networks_are_torchvisions_without_its_prefix(images: Callable) -> None:
    theirs = torchvision.models.densenet121(num_classes=7).eval()
    ours = torchref.create("densenet121", num_classes=7).eval()
    assert isinstance(ours, TorchvisionDenseNet)
    assert type(ours.denseblock1) is type(theirs.features.denseblock1)
    state = {key.removeprefix("features."): v for key, v in theirs.state_dict().items()}
    assert list(ours.state_dict()) == list(state)
    ours.load_state_dict(state)
    x = images(1, 33, 40).float()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ["densenet121", "densenet161", "densenet169", "densenet201"])
def test_this_packages_class_has_the_same_keys_and_shapes(name: str) -> None:
    with torch.device("meta"):
        theirs, ours = torchref.create(name), torchref.create(name, dropout=0.1)
    assert isinstance(ours, torchref.DenseNet)
    assert list(shapes(ours).items()) == list(shapes(theirs).items())


def test_bottleneck_names_and_shapes() -> None:
    with torch.device("meta"):
        state = shapes(torchref.create("densenet_bc_100_12"))
    # shapes as in the upstream CIFAR codes
    assert state["conv0.weight"] == (24, 3, 3, 3)
    assert state["denseblock1.denselayer1.norm1.weight"] == (24,)
    assert state["denseblock1.denselayer1.conv1.weight"] == (48, 24, 1, 1)
    assert state["denseblock1.denselayer1.norm2.running_var"] == (48,)
    assert state["denseblock1.denselayer1.conv2.weight"] == (12, 48, 3, 3)
    assert state["denseblock3.denselayer16.norm1.bias"] == (330,)
    assert state["transition1.norm.weight"] == (216,)
    assert state["transition1.conv.weight"] == (108, 216, 1, 1)
    assert state["norm5.weight"] == (342,)
    assert state["classifier.weight"] == (10, 342)


def test_plain_names_and_shapes() -> None:
    with torch.device("meta"):
        state = shapes(torchref.create("densenet_40_12"))
    assert state["conv0.weight"] == (16, 3, 3, 3)
    assert state["denseblock1.denselayer2.conv1.weight"] == (12, 28, 3, 3)
    assert state["transition1.conv.weight"] == (160, 160, 1, 1)
    assert not any("norm2" in key or "conv2" in key for key in state)


def test_compression_rounds_down() -> None:
    network = torchref.DenseNet(block_sizes=(1, 1), growth_rate=5, stem_width=10, compression=0.3)
    assert network.transition1.conv.out_channels == 4  # 0.3 * 15


@pytest.mark.parametrize("concat", ["old_new", "new_old"])
def test_where_new_features_come(record: Callable, concat: str) -> None:
    network = torchref.DenseNet(**TINY, concat=concat)
    seen = record(network, torch.randn(1, 3, 8, 8))
    x, out = seen["denseblock1"]
    parts = [x, *(seen[f"denseblock1.denselayer{number}"][1] for number in (1, 2))]
    assert torch.equal(out, torch.cat(parts if concat == "old_new" else parts[::-1], dim=1))


@pytest.mark.parametrize("relu", [True, False])
def test_a_transitions_relu(record: Callable, relu: bool) -> None:
    network = torchref.DenseNet(**TINY, transition_relu=relu)
    seen = record(network, torch.randn(1, 3, 8, 8))
    normed = seen["transition1.norm"][1]
    assert normed.min() < 0
    assert torch.equal(seen["transition1.conv"][0], normed.clamp(min=0) if relu else normed)


@pytest.mark.parametrize(("bottleneck", "place"), [(True, "dropout2"), (False, "dropout1")])
def test_dropout_as_torchvisions(record: Callable, bottleneck: bool, place: str) -> None:
    network = torchref.DenseNet(
        **TINY, bottleneck=bottleneck, dropout=0.25, dropout_after="last_conv"
    )
    names = {name for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    layers = ("1.denselayer1", "1.denselayer2", "2.denselayer1", "3.denselayer1")
    assert names == {f"denseblock{layer}.{place}" for layer in layers}
    seen = record(network, torch.randn(2, 3, 32, 32))
    assert {f"denseblock{layer}" for layer in layers} == {
        name for name, (_, out) in seen.items() if any(out is seen[drop][1] for drop in names)
    } - names


@pytest.mark.parametrize("bottleneck", [True, False])
def test_dropout_follows_every_convolution_but_the_stem(record: Callable, bottleneck: bool) -> None:
    network = torchref.DenseNet(**TINY, bottleneck=bottleneck, dropout=0.25)
    names = {name for name, module in network.named_modules() if isinstance(module, nn.Dropout)}
    layers = [
        *("denseblock1.denselayer1", "denseblock1.denselayer2"),
        *("denseblock2.denselayer1", "denseblock3.denselayer1"),
    ]
    convolutions = 2 if bottleneck else 1
    expected = {f"{layer}.dropout{n}" for layer in layers for n in range(1, convolutions + 1)}
    assert names == expected | {"transition1.dropout", "transition2.dropout"}

    seen = record(network, torch.randn(2, 3, 32, 32))
    for name in names:
        dropped_in, dropped_out = seen[name]
        assert dropped_in is seen[name.replace("dropout", "conv")][1]
        assert abs((dropped_out == 0).double().mean().item() - 0.25) < 0.06
    for layer in layers:
        assert seen[layer][1] is seen[f"{layer}.dropout{convolutions}"][1]
        if bottleneck:
            assert seen[f"{layer}.norm2"][0] is seen[f"{layer}.dropout1"][1]
    for number in (1, 2):
        pooled = nn.functional.avg_pool2d(seen[f"transition{number}.dropout"][1], 2)
        assert torch.equal(seen[f"transition{number}"][1], pooled)


@pytest.mark.parametrize("size", [(32, 32), (64, 64), (40, 23)])
def test_any_input_size(size: tuple[int, int]) -> None:
    assert torchref.DenseNet(**TINY)(torch.zeros(2, 3, *size)).shape == (2, 10)


@pytest.mark.parametrize(
    ("depth", "bottleneck", "sizes"),
    [(40, False, 12), (100, False, 32), (40, True, 6), (100, True, 16), (250, True, 41)],
)
def test_block_sizes_from_depth(depth: int, bottleneck: bool, sizes: int) -> None:
    assert torchref.densenet_blocks(depth, bottleneck=bottleneck) == (sizes, sizes, sizes)


@pytest.mark.parametrize(
    ("depth", "bottleneck", "message"),
    [
        (41, True, r"6n\+4 with n >= 1; got 41 \(nearest valid: 40 and 46\)"),
        (41, False, r"3n\+4 with n >= 1; got 41 \(nearest valid: 40 and 43\)"),
        (4, True, r"6n\+4 with n >= 1; got 4 \(nearest valid: 10 and 16\)"),
        (-1, False, "depth must hold whole numbers of at least 1; got -1"),
    ],
)
def test_invalid_depth(depth: int, bottleneck: bool, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        torchref.densenet_blocks(depth, bottleneck=bottleneck)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"compression": 0}, r"compression is .* above 0 and at most 1 \(all\); got 0 "),
        ({"compression": 1.5}, r"compression is .* above 0 and at most 1 \(all\); got 1.5 "),
        ({"compression": 0.001}, "at least one of a block's 216 channels.* 0.00463; got 0.001"),
        ({"dropout": -0.2}, "dropout is .* at least 0 .* got -0.2"),
        ({"dropout": "0.2"}, "dropout is .* got '0.2'"),
        ({"growth_rate": 0}, "growth_rate must hold whole numbers of at least 1; got 0"),
        ({"block_sizes": (6, -1)}, r"block_sizes must hold .* got \(6, -1\)"),
        ({"stem": "cifar10"}, r"stem must be one of cifar, imagenet.*nearest: cifar\)"),
        ({"concat": "new"}, "concat must be one of old_new, new_old; got 'new'"),
        ({"dropout_after": "conv2"}, "dropout_after must be one of every_conv, last_conv"),
        ({"num_classes": 1.5}, "num_classes must be a whole number of at least 1, or 0.*got 1.5"),
        ({"init": "he"}, "init must be one of"),
    ],
)
def test_invalid_configuration(options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        torchref.DenseNet(**options)
