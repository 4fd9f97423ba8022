"""Shapes: a network that takes other pictures, or makes other maps of them, is told."""

from collections import Counter
from typing import Any

import jax
import pytest

import flaxnets
from flaxnets import densenet
from flaxnets.layers import Conv
from parity.comparison import Comparison
from parity.standalone import shapes


def form(name: str) -> shapes.Form:
    return next(form for form in shapes.forms() if name in form.names)


def compare(name: str) -> tuple[list[Comparison], list[Comparison]]:
    """All records of a form, and those that are out."""
    found = list(shapes.compare_form(form(name)))
    return found, [c for c in found if not c.ok]


def test_every_network_has_one_form() -> None:
    counts = Counter(name for form in shapes.forms() for name in form.names)
    assert counts == Counter([*flaxnets.list_models(), shapes.OPTION])
    assert set(shapes.QUICK) <= set(flaxnets.list_models())


def test_a_form_is_the_smallest_network_of_its_kind() -> None:
    config: Any = form("densenet_bc_190_40").config
    assert (config.block_sizes, config.growth_rate, config.num_classes) == ((2, 2, 2), 12, 10)
    assert form("resnet110").title == form("resnet20").title == "resnet20 and 5 like it"
    assert form("resnet20").names != form("resnet20_b").names
    assert form("wrn_28_10") == form("wrn_16_1")


def test_a_form_passes_and_both_sides_refuse_what_is_too_small() -> None:
    found, out = compare("densenet_bc_40_12")
    assert out == []
    notes = {(c.mode, c.layer): c.note for c in found}
    # 4 x 4 is halved twice, which leaves one value a channel for the last norm.
    assert notes["train", "1 of 4x4"].startswith("both refuse: batch norm in training mode needs")
    assert notes["train", "2 of 33x47"] == (
        "stages {'logits': (2, 10), 'stage1': (2, 33, 47, 48), 'stage2': (2, 16, 23, 48), "
        "'stage3': (2, 8, 11, 48)}"
    )
    assert ("eval", "7 of 40x24") in notes


def test_missing_padding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Conv.__call__

    def unpadded(self: Conv, x: jax.Array) -> jax.Array:
        self.padding = 0
        return call(self, x)

    monkeypatch.setattr(Conv, "__call__", unpadded)
    _, out = compare("preact_resnet110")
    assert {(c.mode, c.layer) for c in out} >= {("eval", "7 of 40x24"), ("train", "2 of 33x47")}
    assert "add got incompatible shapes" in out[0].note


def test_a_missing_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgiving(x: jax.Array, size: int) -> jax.Array:
        return x.mean((1, 2), keepdims=True)

    monkeypatch.setattr(densenet, "avg_pool", forgiving)
    _, out = compare("densenet_bc_40_12")
    assert any("(1, 1, 1, 48)" in c.note for c in out)


def test_outcomes_agree_in_shapes_and_refusals() -> None:
    def agree(ours: shapes.Outcome, theirs: shapes.Outcome) -> bool:
        return shapes.compare_outcomes("net", "eval", (1, 4, 4, 3), ours, theirs).ok

    assert agree({"logits": (1, 10)}, {"logits": (1, 10)})
    assert not agree({"logits": (1, 10)}, {"logits": (10,)})
    assert agree("too small", "RuntimeError")
    assert not agree("", "RuntimeError")
    assert not agree({"logits": (1, 10)}, "RuntimeError")
    assert not agree("too small", {"logits": (1, 10)})


def test_numbers_agree_at_an_odd_size() -> None:
    found = shapes.computed(shapes.COMPUTED[0], 0)
    assert [c for c in found if not c.ok] == []
    assert {c.network for c in found} == {f"{shapes.COMPUTED[0]}, 33x47"}
    assert {c.mode for c in found} == {"eval", "train"}
    assert any(c.layer.startswith("input gradient") for c in found)


def test_a_wrong_number_at_an_odd_size_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    call = Conv.__call__

    def late(self: Conv, x: jax.Array) -> jax.Array:
        # The pixels between, where the stride is 2: the same shape at an even size.
        even = self.stride == 2 and x.shape[1] % 2 == 1
        return call(self, x[:, ::-1]) if even else call(self, x)

    monkeypatch.setattr(Conv, "__call__", late)
    out = [c for c in shapes.computed(shapes.COMPUTED[0], 0) if not c.ok]
    assert out[0].layer == "layers, layer2.0.conv2"
