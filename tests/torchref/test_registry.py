import pytest
import torch
import torchvision

import torchref
from torchref.densenet import TorchvisionDenseNet
from torchref.registry import MODELS, RESNETS, TORCHVISION


@pytest.mark.parametrize("name", sorted(TORCHVISION))
def test_torchvisions_networks_are_torchvisions(name: str) -> None:
    with torch.device("meta"):
        network = torchref.create(name, num_classes=5)
    if name in RESNETS:
        assert isinstance(network, torchvision.models.ResNet)
        assert network.fc.out_features == 5
    else:
        assert isinstance(network, TorchvisionDenseNet)
        assert network.classifier.out_features == 5


def test_other_overrides_build_our_own_class() -> None:
    with torch.device("meta"):
        network = torchref.create("resnet18", num_classes=5, shortcut="zero_pad_end")
    assert isinstance(network, torchref.ResNet)
    assert network.fc.out_features == 5
    assert not any("downsample" in key for key in network.state_dict())


@pytest.mark.parametrize(
    ("name", "options", "features"),
    [
        ("resnet18", {}, 512),
        ("resnet20", {}, 64),
        ("densenet121", {"block_sizes": (2, 1)}, 96),
        ("densenet_bc_40_12", {}, 132),
        ("wrn_10_1", {}, 64),
        ("preact_resnet110", {"stage_sizes": (1, 1, 1)}, 64),
    ],
)
def test_without_a_classifier(name: str, options: dict, features: int) -> None:
    """The output is what the classifier would read, and no key is left of it."""
    whole = torchref.create(name, **options).eval()
    headless = torchref.create(name, num_classes=0, **options).eval()
    head = "classifier" if "densenet" in name else "fc"
    state = whole.state_dict()
    kept = {key: value for key, value in state.items() if not key.startswith(f"{head}.")}
    headless.load_state_dict(kept)
    assert len(kept) == len(state) - 2
    x = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        outputs = headless(x)
        assert outputs.shape == (2, features)
        torch.testing.assert_close(getattr(whole, head)(outputs), whole(x))


@pytest.mark.parametrize("name", ["resnet20", "densenet_bc_40_12", "wrn_10_1"])
def test_number_of_classes(name: str) -> None:
    assert torchref.create(name, num_classes=3)(torch.zeros(2, 3, 8, 8)).shape == (2, 3)


def test_creation_leaves_the_table_as_it_was() -> None:
    before = {name: dict(arguments) for name, (_, arguments) in MODELS.items()}
    with torch.device("meta"):
        torchref.create("wrn_16_1", num_classes=3, dropout=0.3)
    assert before == {name: dict(arguments) for name, (_, arguments) in MODELS.items()}


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
@pytest.mark.parametrize(
    ("prefix", "zeros", "dropout"), [("resnet", (8, 8), 0.0), ("kellerjordan_resnet", (0, 16), 0.5)]
)
def test_what_no_weight_shows_of_cifar_resnets(
    prefix: str, depth: int, zeros: tuple[int, int], dropout: float
) -> None:
    with torch.device("meta"):
        block = torchref.create(f"{prefix}{depth}").layer2[0]
    assert (block.downsample.before, block.downsample.after) == zeros
    assert (block.dropout.p if block.dropout else 0.0) == dropout


@pytest.mark.parametrize("name", ["wrn_16_1", "wrn_28_10"])
def test_what_no_weight_shows_of_wrns(name: str) -> None:
    with torch.device("meta"):
        block = torchref.create(name, dropout=0.3).layer2[0]
    assert (block.shortcut_input, block.dropout_before) == ("activated", "conv2")


def test_new_networks_are_in_training_mode() -> None:
    assert torchref.create("wrn_10_1").training


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("resnet21", {}, r"no network is called 'resnet21' \(nearest: .*resnet20"),
        (
            "resnet20",
            {"shortcat": "projection"},
            r"ResNet has no option 'shortcat' \(nearest: shor",
        ),
        ("wrn_16_1", {"growth_rate": 12}, "WideResNet has no option 'growth_rate'"),
        ("densenet_40_12", {"compression": 0}, "compression is .* got 0"),
        ("wrn_16_1", {"depth": 27}, r"6n\+4 .* got 27 \(nearest valid: 22 and 28\)"),
        ("resnet18", {"num_classes": -1}, "num_classes must be a whole number of at least 1"),
        ("densenet121", {"num_classes": 2.0}, "num_classes must be a whole number of at least 1"),
    ],
)
def test_errors_name_the_nearest(name: str, options: dict, message: str) -> None:
    with torch.device("meta"), pytest.raises(ValueError, match=message):
        torchref.create(name, **options)
