"""Batch norm by itself: mistakes in the layer are reported by what they spoil."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import pytest
import torch
from flax import nnx

import flaxnets.layers
from flaxnets.layers import BatchNorm, FeatureMaps
from parity.comparison import Comparison, Mode
from parity.standalone import batch_norm
from parity.standalone.batch_norm import (
    CHECK,
    LARGE_OFFSET,
    NormCase,
    make_inputs,
    run_flax,
    run_torch,
)
from parity.standalone.findings import Recorder

MAPS = NormCase("maps")


def compare(
    case: NormCase = MAPS, dtype: str = "float64", mode: Mode = "train", shared: bool = False
) -> list[str]:
    """What is out."""
    inputs = make_inputs(case, 0)
    oracle = run_torch(case, inputs, torch.float64, mode)
    references = [run_torch(case, inputs, torch.float32, mode)] if dtype == "float32" else []
    found = run_flax(case, inputs, dtype, mode, shared=shared)
    recorder = Recorder(CHECK, case.name, dtype, mode)
    return out(list(batch_norm.compare(recorder, found, oracle, references)))


def out(found: list[Comparison]) -> list[str]:
    return [c.layer for c in found if not c.ok]


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_all_is_well(seed: int) -> None:
    assert out(list(batch_norm.check_batch_norm(seed, quick=False))) == []


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("mode", ["eval", "train"])
@pytest.mark.parametrize("case", [MAPS, LARGE_OFFSET], ids=lambda case: case.name)
def test_a_case_passes(case: NormCase, mode: Mode, shared: bool) -> None:
    assert compare(case, mode=mode, shared=shared) == []


def test_a_biased_running_variance_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    update = BatchNorm._update_running_statistics

    def biased(self: BatchNorm, mean: Any, var: Any, shape: Any) -> None:
        count = shape[0] * shape[1] * shape[2]
        update(self, mean, var * ((count - 1) / count), shape)

    monkeypatch.setattr(BatchNorm, "_update_running_statistics", biased)
    assert compare() == compare(shared=True) == ["running variance"]


def test_momentum_in_the_other_sense_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    class Swapped(BatchNorm):
        def __init__(self, features: int, *, momentum: float, **options: Any) -> None:
            super().__init__(features, momentum=1 - momentum, **options)

    monkeypatch.setattr(batch_norm, "BatchNorm", Swapped)
    assert compare() == ["running mean", "running variance"]
    assert compare(mode="eval") == []


def test_the_fast_formula_is_found_beside_a_large_mean(monkeypatch: pytest.MonkeyPatch) -> None:
    def fast(x: jax.Array, epsilon: float) -> Any:
        mean = x.mean((0, 1, 2))
        var = jnp.square(x).mean((0, 1, 2)) - jnp.square(mean)
        deviation = jnp.sqrt(jnp.maximum(var, 0) + epsilon)
        normalized = (x - mean) / deviation
        return (normalized, mean, var), (normalized, deviation)

    monkeypatch.setattr(flaxnets.layers, "_normalize_forward", fast)
    assert compare(dtype="float32") == []
    assert "output" in compare(LARGE_OFFSET, "float32")


def test_no_gradient_through_the_statistics_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def without(residuals: Any, gradients: Any, mean: jax.Array, slope: jax.Array) -> jax.Array:
        _, deviation = residuals
        return gradients[0] / deviation

    monkeypatch.setattr(flaxnets.layers, "_gradient_through_statistics", without)
    assert compare() == compare(shared=True) == ["input gradient"]


def test_epsilon_beside_the_root_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    case = dataclasses.replace(MAPS, name="epsilon", epsilon=1e-3)
    assert compare(case, mode="eval") == []

    class Outside(BatchNorm):
        def __call__(self, x: jax.Array | FeatureMaps) -> jax.Array:
            mean, var = self.mean[...], self.var[...]
            normalized = (x - mean) / (jnp.sqrt(var) + self.epsilon)
            return normalized * self.scale[...] + self.bias[...]

    monkeypatch.setattr(batch_norm, "BatchNorm", Outside)
    assert compare(case, mode="eval") == ["output", "input gradient", "scale gradient"]


def test_a_missing_refusal_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    found = batch_norm.refusal(shared=False)
    assert found.ok
    assert "use a larger batch" in found.note
    monkeypatch.setattr(BatchNorm, "_update_running_statistics", lambda *_: None)
    found = batch_norm.refusal(shared=False)
    assert not found.ok
    assert found.note == "PyTorch refuses it, Flax doesn't"


def test_the_fast_formula_would_be_seen() -> None:
    found = batch_norm.fast_formula(0)
    assert found.ok
    assert found.note.startswith("would be off by")


def test_another_dtype_than_bfloat16_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    assert out(list(batch_norm.bfloat16_input(0))) == []

    class Narrow(BatchNorm):
        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options | {"param_dtype": jnp.bfloat16})

        def __call__(self, x: Any) -> jax.Array:
            for running in (self.mean, self.var):
                running.set_value(running[...].astype(jnp.bfloat16))
            return super().__call__(x)

    monkeypatch.setattr(batch_norm, "BatchNorm", Narrow)
    assert "dtypes" in out(list(batch_norm.bfloat16_input(0)))
    assert isinstance(Narrow(3), nnx.Module)
