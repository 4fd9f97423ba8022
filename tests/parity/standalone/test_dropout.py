"""Dropout with equal masks: a mistake in Flax's is reported where it is."""

from collections.abc import Callable
from typing import Any

import jax
import pytest
from flax import nnx

import flaxnets
from parity.comparison import Comparison
from parity.standalone import dropout

BEFORE_CONV2 = "wrn, before conv2"
BLOCKS = [f"layer{stage}.0" for stage in (1, 2, 3)]


def compare(name: str = BEFORE_CONV2) -> tuple[list[Comparison], list[str]]:
    """All records, and the places of those that are out."""
    found = list(dropout.compare_variant(name, 0))
    return found, [c.layer for c in found if not c.ok]


@pytest.fixture
def spoiled(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[Any], None]], None]:
    """Let a function change the Flax network before it is compared."""
    load = flaxnets.load_torch

    def plant(spoil: Callable[[Any], None]) -> None:
        def loaded(*args: Any, **kwargs: Any) -> Any:
            model = load(*args, **kwargs)
            spoil(model)
            return model

        monkeypatch.setattr(flaxnets, "load_torch", loaded)

    return plant


@pytest.fixture
def with_call(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[..., Any]], None]:
    """Replace dropout's call by ``function(call, layer, x)``."""
    original = nnx.Dropout.__call__

    def plant(function: Callable[..., Any]) -> None:
        def call(self: nnx.Dropout, x: jax.Array) -> jax.Array:
            return function(original, self, x)

        monkeypatch.setattr(nnx.Dropout, "__call__", call)

    return plant


def test_a_network_passes_and_tells_where_its_dropout_is() -> None:
    found, out = compare()
    assert not out
    notes = {c.layer: c.note for c in found if c.layer.endswith("dropout") and "," not in c.layer}
    assert notes == {f"{block}.dropout": "reads relu bn2" for block in BLOCKS}
    assert {(c.dtype, c.mode) for c in found} == {("float64", "train"), ("float64", "eval")}
    kinds = [c.layer.partition(",")[0] for c in found[5:]]
    assert kinds == [
        *("names", "layers", "logits", "loss", "parameter gradients", "input gradient"),
        *("statistics", "logits", "draws"),
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", dropout.VARIANTS)
def test_every_variant_passes(name: str) -> None:
    assert compare(name)[1] == []


def test_dropout_in_another_place_is_found(spoiled: Callable) -> None:
    def spoil(model: Any) -> None:
        model.layer2[0].drops_after_first = True

    spoiled(spoil)
    out = compare()[1]
    assert out[0] == "layer2.0.dropout"
    assert "layers, layer2.0.dropout" in out or "layers, layer2.0.bn2" in out


def test_a_dropout_too_few_is_found(spoiled: Callable) -> None:
    def spoil(model: Any) -> None:
        model.layer1[0].dropout = nnx.data(None)

    spoiled(spoil)
    found, out = compare("kellerjordan_resnet20")
    assert out[:2] == ["number of dropout layers", "names, layer1.0.dropout"]
    assert found[0].note == "1, 2 expected: layer2.0.dropout"


def test_another_rate_is_found(spoiled: Callable) -> None:
    def spoil(model: Any) -> None:
        model.layer3[0].dropout.rate = 0.4

    spoiled(spoil)
    assert compare()[1][:2] == ["scaling", "layers, layer3.0.dropout"]


def test_dropout_without_scaling_is_found(with_call: Callable) -> None:
    def unscaled(call: Callable, layer: nnx.Dropout, x: jax.Array) -> jax.Array:
        return call(layer, x) * (1 if layer.deterministic else 1 - layer.rate)

    with_call(unscaled)
    assert compare()[1][:2] == ["scaling", "layers, layer1.0.dropout"]


def test_a_gradient_that_forgets_the_mask_is_found(with_call: Callable) -> None:
    def straight_through(call: Callable, layer: nnx.Dropout, x: jax.Array) -> jax.Array:
        return x + jax.lax.stop_gradient(call(layer, x) - x)

    with_call(straight_through)
    out = [layer.partition(",")[0] for layer in compare()[1]]
    assert out == ["parameter gradients", "input gradient"]


def test_dropout_in_evaluation_is_found(with_call: Callable) -> None:
    def always(call: Callable, layer: nnx.Dropout, x: jax.Array) -> jax.Array:
        layer.deterministic = False
        return call(layer, x)

    with_call(always)
    found, _ = compare()
    assert [(c.layer, c.mode) for c in found if not c.ok] == [("logits", "eval"), ("draws", "eval")]
