"""The table of the checks that stand apart."""

from collections.abc import Iterator

import pytest
import torch

from parity.comparison import CHECKS, NETWORK_CHECKS, Comparison
from parity.standalone import STANDALONE, on_one_thread


def test_every_check_that_stands_apart_is_there_and_in_order() -> None:
    apart = [name for name in CHECKS if name not in NETWORK_CHECKS and name != "drift"]
    assert list(STANDALONE) == apart


@pytest.mark.slow
@pytest.mark.parametrize("name", STANDALONE)
def test_all_is_well(name: str) -> None:
    found = list(STANDALONE[name](0, True))
    assert [c for c in found if not c.ok] == []
    assert {c.check for c in found} == {name}
    places = [(c.network, c.dtype, c.mode, c.layer) for c in found]
    assert len(places) == len({*places})


def test_a_check_keeps_pytorch_to_one_thread_and_puts_it_back() -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    seen = []

    def check(seed: int, quick: bool) -> Iterator[Comparison]:
        seen.append((seed, quick, torch.get_num_threads()))
        yield Comparison("net", "shapes", "", "", "", error=0.0, budget=0.0)
        seen.append(torch.get_num_threads())
        if quick:
            raise ValueError("a mistake")

    try:
        assert len(list(on_one_thread(check)(3, False))) == 1
        assert torch.get_num_threads() == 2
        with pytest.raises(ValueError, match="a mistake"):
            on_one_thread(check)(3, True)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)
    assert seen == [(3, False, 1), 1, (3, True, 1), 1]
