"""Small networks of every family against their PyTorch twins; ``parity --all`` has all of them."""

import pytest

from parity.budget import DType
from parity.cases import find_case
from parity.checks import check_pair
from parity.comparison import MODES, Comparison, Mode, first_divergence
from parity.pairs import make_pair
from parity.report import describe

QUICK = (
    "resnet, zero_pad_end",
    "resnet, zero_pad_both",
    "resnet, avg_pool_pad",
    "resnet, projection",
    "resnet, projection_biased",
    "bottleneck, ImageNet stem",
    "densenet, bottleneck",
    "wrn, raw projection",
    "wrn, meliketoy's",
    "bottleneck, groups",
    "densenet, new maps first",
    "preact basic, activated_first zero_pad_end",
    "preact bottleneck, weiaicunzai's",
)


def compare(name: str, dtypes: tuple[DType, ...], modes: tuple[Mode, ...]) -> list[Comparison]:
    pair = make_pair(find_case(name))
    return [c for group in check_pair(pair, dtypes=dtypes, modes=modes) for c in group]


def assert_equal(found: list[Comparison], at_least: int) -> None:
    first = first_divergence(found)
    assert first is None, describe(first)
    assert len(found) > at_least


@pytest.mark.usefixtures("quick_compilation")
@pytest.mark.parametrize("name", QUICK)
def test_equal_in_float64(name: str) -> None:
    assert_equal(compare(name, ("float64",), MODES), at_least=100)


@pytest.mark.parametrize("name", ["resnet, projection", "wrn, raw projection"])
def test_equal_in_float32(name: str) -> None:
    assert_equal(compare(name, ("float32",), ("train",)), at_least=50)
