"""Mistakes that a port makes, planted in a tiny network: each is found, and where it is."""

from collections import Counter
from collections.abc import Callable

import pytest

from parity.checks import Pair, check_pair
from parity.comparison import Comparison, Mode, first_divergence

pytestmark = pytest.mark.usefixtures("quick_compilation")


def compare(pair: Pair, mode: Mode) -> list[Comparison]:
    return [c for group in check_pair(pair, dtypes=["float64"], modes=[mode]) for c in group]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_nothing_is_found_where_there_is_no_mistake(
    mode: Mode, tiny_pair: Callable[..., Pair]
) -> None:
    found = compare(tiny_pair(), mode)
    assert first_divergence(found) is None
    assert Counter(c.check for c in found) == {
        "parameters": 1,
        "names": 1,
        "isolated layers": 5,
        "layers": 6,
        "logits": 1,
        "loss": 1,
        "layer gradients": 6,
        "parameter gradients": 9,
        "input gradient": 1,
        "statistics": 6,
        "whole network": 17,
    } | ({"updates": 6} if mode == "train" else {})


@pytest.mark.parametrize(
    ("mistake", "mode", "check", "layer", "note"),
    [
        ("epsilon", "eval", "isolated layers", "bn1", "output"),
        ("kernel axes swapped", "eval", "isolated layers", "conv1", "output"),
        ("missing ReLU", "eval", "layers", "conv2", ""),
        (
            "stride on the wrong convolution",
            *("eval", "isolated layers", "conv1", "shape (2, 6, 8, 4), PyTorch's is (2, 3, 4, 4)"),
        ),
        (
            "no padding",
            *("eval", "isolated layers", "conv2", "shape (2, 1, 2, 6), PyTorch's is (2, 3, 4, 6)"),
        ),
        ("missing layer", "eval", "names", "bn2", "layer only in PyTorch"),
        ("one layer too many", "eval", "names", "dropout (call 2)", "layer only in Flax"),
        ("biased running variance", "train", "statistics", "bn1.running_var", ""),
        (
            "no gradient through statistics",
            *("train", "isolated layers", "bn1", "gradient of the input"),
        ),
    ],
)
def test_mistake_is_located(
    mistake: str, mode: Mode, check: str, layer: str, note: str, tiny_pair: Callable[..., Pair]
) -> None:
    first = first_divergence(compare(tiny_pair(mistake), mode))
    assert first is not None
    assert (first.check, first.layer, first.note) == (check, layer, note)
    assert first.error > 1e-4


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_network_that_cannot_be_run_is_compared_as_far_as_it_goes(
    mode: Mode, tiny_pair: Callable[..., Pair]
) -> None:
    found = compare(tiny_pair("not pooled"), mode)
    assert Counter(c.check for c in found) == {"parameters": 1, "layers": 1, "isolated layers": 5}
    first = first_divergence(found)
    assert first is not None
    assert (first.check, first.layer) == ("layers", "fc")
    assert first.note.startswith("TypeError: dot_general requires contracting dimensions")
    assert all(c.ok for c in found if c is not first)
