"""The check of networks as one program: what it sees that watched layers do not show."""

from typing import Any

import pytest

from flaxnets import dense_run, repetition
from parity.budget import DType
from parity.cases import Case
from parity.checks import check_pair
from parity.comparison import MODES, Comparison, Mode
from parity.pairs import make_pair
from parity.whole import CHECK

# Networks that no other test compiles: the forms are chosen while they are traced.
DENSENET = {"block_sizes": (2, 3), "growth_rate": 4, "stem_width": 6}
ROW = {"stage_sizes": (6,), "widths": (8,), "stem_width": 8, "shortcut": "projection"}
SUBJECTS = {
    "densenet": (Case("densenet", "densenet_bc_40_12", DENSENET, 8, 12, 2), dense_run, "_run"),
    "row of blocks": (Case("row of blocks", "resnet20", ROW, 8, 12, 2), repetition, "_loop"),
}


@pytest.fixture(params=SUBJECTS)
def subject(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> tuple[Case, list[Any]]:
    """A network, and a list that grows where the form that nobody watches is used."""
    case, module, name = SUBJECTS[request.param]
    calls: list[Any] = []
    original = getattr(module, name)

    def spy(*args: Any) -> Any:
        calls.append(args)
        return original(*args)

    monkeypatch.setattr(module, name, spy)
    return case, calls


def compare(case: Case, check: str, dtype: DType, mode: Mode) -> list[Comparison]:
    groups = check_pair(make_pair(case), dtypes=[dtype], modes=[mode], checks=[check])
    return [comparison for group in groups for comparison in group]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("mode", MODES)
def test_equal_where_nobody_watches(
    subject: tuple[Case, list[Any]], dtype: DType, mode: Mode
) -> None:
    case, calls = subject
    found = compare(case, CHECK, dtype, mode)
    assert calls
    assert {comparison.check for comparison in found} == {CHECK}
    assert all(comparison.ok for comparison in found)
    notes = {comparison.note for comparison in found}
    assert notes == {"logits", "statistic"} | (
        {"loss", "gradient"} if dtype == "float64" else set()
    )


def test_watched_layers_do_not_show_it(subject: tuple[Case, list[Any]]) -> None:
    case, calls = subject
    assert compare(case, "logits", "float64", "train")
    assert not calls
