"""Networks compiled whole, in bfloat16 and for other devices: mistakes that only show there."""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

import flaxnets.layers
from flaxnets.layers import BatchNorm
from parity.cases import Case
from parity.checks import Pair
from parity.comparison import Comparison
from parity.lockstep import FAMILIES
from parity.pairs import make_pair
from parity.standalone import compiled, export, lowering
from train.step import make_train_step

ARCH, OVERRIDES = FAMILIES["preact"]
CASE = Case("preact", ARCH, OVERRIDES, 8, 12)


def out(found: list[Comparison]) -> list[str]:
    return [c.layer for c in found if not c.ok]


@pytest.fixture
def pair() -> Pair:
    return make_pair(CASE)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 1])
def test_all_is_well(seed: int) -> None:
    found = list(export.check_export(seed, quick=False))
    assert out(found) == []
    assert {c.dtype for c in found} == {"float64", "float32", "bfloat16"}


@pytest.mark.slow
def test_a_count_that_python_keeps_is_lost_when_compiled(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    update = BatchNorm._update_running_statistics
    calls = 0

    def slower_and_slower(self: BatchNorm, *args: Any) -> None:
        nonlocal calls
        calls += 1
        self.momentum = 1 - 0.1 / calls
        update(self, *args)

    assert out(list(export.compare_eager(pair, "train"))) == []
    monkeypatch.setattr(BatchNorm, "_update_running_statistics", slower_and_slower)
    found = list(export.compare_eager(pair, "train"))
    assert [layer.partition(",")[0] for layer in out(found)] == ["statistics"]


@pytest.mark.slow
def test_the_program_that_is_compared_is_compiled(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    runs = []
    record = compiled.record_compiled

    def watched(*args: Any, **kwargs: Any) -> Any:
        runs.append(kwargs)
        return record(*args, **kwargs)

    monkeypatch.setattr(compiled, "record_compiled", watched)
    assert out(list(export.compare_compiled(pair))) == []
    assert runs == [{"dtype": "float32", "training": mode} for mode in (False, True)]


@pytest.mark.parametrize("mode", ["eval", "train"])
def test_bfloat16_passes(pair: Pair, mode: Any) -> None:
    dtypes, *found = export.compare_bfloat16(pair, ARCH, OVERRIDES, mode)
    assert dtypes.ok
    assert dtypes.note.startswith("layers bfloat16, logits bfloat16, loss float32, gradients flo")
    assert out(found) == []
    assert {c.dtype for c in found} == {"bfloat16"}
    errors = {c.layer.partition(",")[0]: c.error for c in found}
    assert 1e-3 < errors["logits"] < 0.05
    assert 1e-3 < errors["input gradient"] < 0.05


def test_a_narrower_dtype_is_found(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    convolve = flaxnets.layers.conv2d

    def narrow(images: jax.Array, kernel: jax.Array, *options: int) -> jax.Array:
        return convolve(images, kernel.astype(jnp.float8_e5m2).astype(kernel.dtype), *options)

    monkeypatch.setattr(flaxnets.layers, "conv2d", narrow)
    found = export.compare_bfloat16(pair, ARCH, OVERRIDES, "eval")
    assert out(list(found))[0] == "layers, conv1"


def test_parameters_in_bfloat16_are_found(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    load = flaxnets.load_torch

    def narrow(*args: Any, **kwargs: Any) -> Any:
        return load(*args, **kwargs | {"param_dtype": jnp.bfloat16})

    monkeypatch.setattr(flaxnets, "load_torch", narrow)
    found = list(export.compare_bfloat16(pair, ARCH, OVERRIDES, "eval"))
    assert out(found)[0] == "dtypes"
    assert "gradients bfloat16" in found[0].note


def lowered() -> list[Comparison]:
    return list(lowering.check_lowering("export", CASE))


def test_steps_lower_for_other_devices() -> None:
    found = lowered()
    assert out(found) == []
    assert [c.network for c in found[::5]] == ["preact, step for cuda", "preact, step for tpu"]
    assert [(c.layer, c.note) for c in found[:5]] == [
        ("convolution", "14, 14 expected"),
        ("dot_general", "3, 3 expected"),
        ("forms for CPUs", "none"),
        ("calls of the host", "none"),
        ("donated buffers", "50 of 50 are used again"),
    ]


def test_a_form_for_cpus_on_another_device_is_found(
    without_native: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def always(*args: Any, cpu: Callable, default: Callable) -> Any:
        return cpu(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", always)
    assert out(lowered()[:5]) == ["convolution", "dot_general", "forms for CPUs"]


def with_step(monkeypatch: pytest.MonkeyPatch, change: Callable[[Any], Any]) -> list[Comparison]:
    """Records of a training step whose new state is changed."""

    def make(*arguments: Any) -> Any:
        step = make_train_step(*arguments)

        def run(*args: Any) -> Any:
            state, metrics = step(*args)
            return change(state), metrics

        return run

    monkeypatch.setattr(lowering, "make_train_step", make)
    return lowered()


def test_a_call_of_the_host_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def printed(state: Any) -> Any:
        jax.debug.print("step {}", state.step)
        return state

    found = with_step(monkeypatch, printed)
    assert out(found) == ["lowering", "lowering"]
    assert len(found) == 2
    assert "lowering platform cuda" in found[0].note


@pytest.mark.filterwarnings("ignore:Some donated buffers were not usable")
def test_a_buffer_that_is_not_used_again_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    def narrowed(state: Any) -> Any:
        params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state.params)
        return dataclasses.replace(state, params=params)

    found = with_step(monkeypatch, narrowed)[:5]
    assert out(found) == ["donated buffers"]
    assert found[-1].note == "33 of 50 are used again"
