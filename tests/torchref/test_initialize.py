import math

import pytest
import torch
import torchvision
from torch import nn
from torchvision.models.resnet import BasicBlock

import torchref
from torchref.initialize import initialize

INITS = ["fan_out", "fan_out_zero_bias", "fan_in", "fan_in_zero_bias", "xavier", "torch"]


def small_network() -> nn.Module:
    """A 5x3 kernel that is neither square nor equal in and out, so that no two fans agree."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(40, 200, (5, 3)), nn.BatchNorm2d(200), nn.Linear(300, 900))


@pytest.mark.parametrize(
    ("init", "conv_std", "linear_std"),
    [
        ("fan_out", math.sqrt(2 / (15 * 200)), 1 / math.sqrt(3 * 300)),
        ("fan_out_zero_bias", math.sqrt(2 / (15 * 200)), 1 / math.sqrt(3 * 300)),
        ("fan_in", math.sqrt(2 / (15 * 40)), math.sqrt(2 / 300)),
        ("fan_in_zero_bias", math.sqrt(2 / (15 * 40)), 1 / math.sqrt(3 * 300)),
        ("xavier", math.sqrt(2 * 2 / (15 * 240)), 1 / math.sqrt(3 * 300)),
        ("torch", 1 / math.sqrt(3 * 15 * 40), 1 / math.sqrt(3 * 300)),  # uniform: b / sqrt(3)
    ],
)
def test_spread_of_kernels(init: str, conv_std: float, linear_std: float) -> None:
    network = small_network()
    initialize(network, init)
    conv, norm, linear = network
    assert conv.weight.std().item() == pytest.approx(conv_std, rel=0.02)
    assert linear.weight.std().item() == pytest.approx(linear_std, rel=0.02)
    assert torch.all(norm.weight == 1)
    assert torch.all(norm.bias == 0)


@pytest.mark.parametrize("init", INITS)
def test_normal_or_uniform(init: str) -> None:
    network = small_network()
    initialize(network, init)
    conv, _, linear = network
    largest = [(w.abs().max() / w.std()).item() for w in (conv.weight, linear.weight)]
    # a uniform never leaves sqrt(3) standard deviations, 10^5 normal draws exceed 3.5
    assert (largest[0] > 3.5) == (init not in ("torch", "xavier"))
    assert (largest[1] > 3.5) == (init == "fan_in")


@pytest.mark.parametrize("init", INITS)
def test_biases(init: str) -> None:
    network = small_network()
    initialize(network, init)
    conv, _, linear = network
    expected = 0.0 if init == "xavier" else 1 / math.sqrt(3 * 15 * 40)
    assert conv.bias.std().item() == pytest.approx(expected, rel=0.15)
    expected = 0.0 if "zero_bias" in init else 1 / math.sqrt(3 * 300)
    assert linear.bias.std().item() == pytest.approx(expected, rel=0.1)


def test_unknown_init_names_the_valid_ones() -> None:
    with pytest.raises(ValueError, match=r"init must be one of fan_out, .*nearest: fan_out"):
        initialize(nn.Linear(1, 1), "fanout")


@pytest.mark.parametrize(
    ("name", "options", "init"),
    [
        ("resnet18_cifar", {"stage_sizes": (1,), "widths": (64,)}, "torch"),
        ("pytorch_book_resnet34", {"stage_sizes": (1,), "widths": (64,)}, "torch"),
        ("resnet20", {}, "fan_in"),
        ("kellerjordan_resnet20", {}, "torch"),
        ("densenet_40_12", {}, "fan_out_zero_bias"),
        ("densenet_bc_40_12", {}, "fan_out_zero_bias"),
        ("wrn_16_1", {}, "fan_out_zero_bias"),
        ("resnet20_b", {}, "fan_out"),
        ("resnet164", {"stage_sizes": (1,), "widths": (16,)}, "fan_out_zero_bias"),
        ("preact_resnet110", {"stage_sizes": (1,), "widths": (16,)}, "fan_out_zero_bias"),
        ("preact_resnet18_cifar", {"stage_sizes": (1,), "widths": (64,)}, "torch"),
        ("densenet121", {"block_sizes": (1,)}, "fan_in_zero_bias"),
        ("densenet_cifar", {"block_sizes": (1,)}, "torch"),
        ("meliketoy_wrn_16_8", {"depth": 10, "widen_factor": 1}, "xavier"),
        ("weiaicunzai_wrn_40_10", {"depth": 10, "widen_factor": 1}, "torch"),
    ],
)
def test_named_networks_are_initialized_as_published(name: str, options: dict, init: str) -> None:
    def drawn(**kind: str) -> list[torch.Tensor]:
        torch.manual_seed(3)
        return list(torchref.create(name, **options, **kind).parameters())

    alike = {kind for kind in INITS if same(drawn(), drawn(init=kind))}
    assert alike == {init}


def test_resnet_is_initialized_as_torchvisions_by_default() -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.ResNet(BasicBlock, [1, 1, 1, 1], num_classes=7)
    torch.manual_seed(3)
    ours = torchref.ResNet(stage_sizes=(1, 1, 1, 1), num_classes=7)
    stds = [[p.std().item() for p in network.parameters()] for network in (ours, theirs)]
    torch.testing.assert_close(*map(torch.tensor, stds), rtol=0.1, atol=0.0, equal_nan=True)


def test_densenet_is_initialized_as_torchvisions() -> None:
    torch.manual_seed(3)
    theirs = torchvision.models.DenseNet(16, (2, 1), 24, num_classes=7)
    torch.manual_seed(3)
    ours = torchref.create(
        "densenet121", block_sizes=(2, 1), growth_rate=16, stem_width=24, num_classes=7
    )
    stds = [[p.std().item() for p in network.parameters()] for network in (ours, theirs)]
    torch.testing.assert_close(*map(torch.tensor, stds), rtol=0.15, atol=0.0, equal_nan=True)


def same(weights: list[torch.Tensor], others: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(weights, others, strict=True))
