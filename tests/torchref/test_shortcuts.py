import pytest
import torch
from torch import nn

from torchref.shortcuts import make_shortcut

KINDS_WITHOUT_PARAMETERS = ["zero_pad_end", "zero_pad_both", "avg_pool_pad"]

# one image of two channels: 0 ... 15 and 100 ... 115, four to a row
IMAGE = torch.stack([torch.arange(16.0), torch.arange(100.0, 116.0)]).reshape(1, 2, 4, 4)
SAMPLED = [[[0.0, 2.0], [8.0, 10.0]], [[100.0, 102.0], [108.0, 110.0]]]
AVERAGED = [[[2.5, 4.5], [10.5, 12.5]], [[102.5, 104.5], [110.5, 112.5]]]
ZERO = [[0.0, 0.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    ("kind", "expected"),
    [
        ("zero_pad_end", [*SAMPLED, ZERO, ZERO, ZERO]),
        ("zero_pad_both", [ZERO, *SAMPLED, ZERO, ZERO]),
        ("avg_pool_pad", [*AVERAGED, ZERO, ZERO, ZERO]),
    ],
)
def test_arithmetic(kind: str, expected: list) -> None:
    assert make_shortcut(kind, 2, 5, 2)(IMAGE)[0].tolist() == expected


@pytest.mark.parametrize(
    ("kind", "channels"),
    [
        ("zero_pad_both", range(8, 24)),  # akamaster
        ("zero_pad_end", range(16)),  # KellerJordan
        ("avg_pool_pad", range(16)),
    ],
)
def test_channels_that_carry_data(kind: str, channels: range) -> None:
    out = make_shortcut(kind, 16, 32, 2)(torch.ones(1, 16, 8, 8))
    assert out.amax(dim=(0, 2, 3)).nonzero().flatten().tolist() == list(channels)


@pytest.mark.parametrize(
    ("kind", "height"), [("zero_pad_end", 4), ("zero_pad_both", 4), ("avg_pool_pad", 3)]
)
def test_odd_sizes_round_up_unless_averaged(kind: str, height: int) -> None:
    assert make_shortcut(kind, 2, 4, 2)(torch.ones(1, 2, 7, 5)).shape[2] == height


@pytest.mark.parametrize("kind", KINDS_WITHOUT_PARAMETERS)
def test_no_parameters(kind: str) -> None:
    assert make_shortcut(kind, 16, 32, 2).state_dict() == {}


@pytest.mark.parametrize("kind", KINDS_WITHOUT_PARAMETERS)
def test_padding_cannot_remove_channels(kind: str) -> None:
    with pytest.raises(ValueError, match=r"output channels.*got 32 -> 16"):
        make_shortcut(kind, 32, 16, 1)


def test_projection_is_convolution_and_norm() -> None:
    state = make_shortcut("projection", 16, 32, 2).state_dict()
    assert state["0.weight"].shape == (32, 16, 1, 1)
    assert list(state) == [
        "0.weight",
        *(f"1.{leaf}" for leaf in nn.BatchNorm2d(32).state_dict()),
    ]


def test_biased_projection_by_hand() -> None:
    projection = make_shortcut("projection_biased", 2, 1, 2)
    assert list(projection.state_dict()) == ["0.weight", "0.bias"]
    with torch.no_grad():
        projection[0].weight.copy_(torch.tensor([[[[10.0]], [[1.0]]]]))
        projection[0].bias.fill_(7.0)
    expected = [
        [10 * a + b + 7 for a, b in zip(*rows, strict=True)] for rows in zip(*SAMPLED, strict=True)
    ]
    assert projection(IMAGE)[0, 0].tolist() == expected
