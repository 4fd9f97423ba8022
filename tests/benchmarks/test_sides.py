"""Every side does the work: the same work, from the same weights and pictures."""

import dataclasses
import importlib
import math
import subprocess
import sys
from types import ModuleType
from typing import Any
from unittest import mock

import numpy as np
import pytest

from benchmarks import data, loading, torch_side, worker
from benchmarks.machine import PeakMemory, require_memory
from benchmarks.roofline import Roofline
from benchmarks.task import Task

TASK = Task(
    "train-step",
    "ours",
    batch=4,
    height=16,
    width=16,
    steps=1,
    pictures=12,
    options={"stage_sizes": (1, 1), "widths": (8, 16), "stem_width": 8},
    sgd={"lr": 0.1, "momentum": 0.9, "nesterov": True, "weight_decay": 5e-4},
)
SIDES = {"ours": "ours", "flax": "flax_side", "torch-eager": "torch_side"}


def module(side: str) -> ModuleType:
    return importlib.import_module(f"benchmarks.{SIDES.get(side, 'torch_side')}")


def make(side: str, kind: str = "Training", **changes: Any) -> Any:
    return getattr(module(side), kind)(dataclasses.replace(TASK, side=side, **changes))


@pytest.fixture(scope="module")
def trained() -> dict[str, tuple[list[float], dict[str, np.ndarray]]]:
    """Losses and parameters of three updates of every side."""
    found = {}
    for side in (*SIDES, "torch-channels-last"):
        training = make(side)
        losses = [loss for _ in range(3) for loss in training.advance(1)]
        found[side] = losses, training.parameters()
    return found


@pytest.mark.parametrize("side", ["ours", "flax", "torch-channels-last"])
def test_sides_make_the_same_updates(side: str, trained: dict[str, Any]) -> None:
    """Momentum and weight decay are in the second and third loss."""
    expected_losses, expected = trained["torch-eager"]
    losses, parameters = trained[side]
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)
    assert losses[1] != losses[0]
    assert parameters.keys() == expected.keys()
    for name, value in expected.items():
        distance = np.abs(parameters[name] - value).max()
        assert distance <= 2e-5 * np.abs(value).max(), name


def test_updates_change_every_parameter(trained: dict[str, Any]) -> None:
    _, parameters = trained["ours"]
    first = data.draw_weights({name: value.shape for name, value in parameters.items()})
    assert all(np.any(parameters[name] != value) for name, value in first.items())


def test_several_steps_in_a_dispatch_are_the_same_steps(trained: dict[str, Any]) -> None:
    """Step by step each update sees the first batch; in dispatches of two also the second."""
    training = make("ours", steps=2, pictures=8)
    losses = training.advance(3)
    assert len(losses) == 4
    np.testing.assert_allclose(losses[0], trained["ours"][0][0], rtol=1e-6)
    eager = make("torch-eager").advance(2)
    np.testing.assert_allclose(losses[:2], eager, rtol=1e-3)


def test_inference_gives_the_same_logits() -> None:
    task = {"work": "inference", "steps": 1}
    expected, *others = (np.asarray(make(side, "Inference", **task).advance(2)) for side in SIDES)
    assert expected.shape == (2, 4, 10)
    for logits in others:
        np.testing.assert_allclose(logits, expected, atol=1e-4 * np.abs(expected).max(), rtol=0)


def test_bfloat16_is_computed_in() -> None:
    float32 = np.asarray(make("ours", "Inference", work="inference").advance(1)[0])
    for side in SIDES:
        logits = make(side, "Inference", work="inference", dtype="bfloat16").advance(1)[0]
        distance = np.abs(np.asarray(logits, np.float32) - float32).max() / np.abs(float32).max()
        assert 1e-4 < distance < 0.1


@pytest.mark.parametrize("side", ["ours", "torch-loader-0"])
def test_batches_are_made(side: str) -> None:
    assert make(side, "Input", work="input", steps=3).advance(3) == [None] * 3


@pytest.mark.parametrize("side", ["ours", "torch-eager"])
def test_an_epoch_trains_and_tests(side: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch_side, "TUTORIAL_WORKERS", 0)
    # The engine splits its 128 test pictures over the devices; few pictures are padded.
    epoch = make(side, "Epoch", work="epoch")
    before = epoch.parameters()
    (loss,) = epoch.advance(1)
    assert math.isfinite(loss)
    after = epoch.parameters()
    assert all(np.any(after[name] != value) for name, value in before.items())


def test_a_file_is_loaded(tmp_path: Any) -> None:
    import torch

    import torchref

    state = torchref.create("resnet20", **TASK.options).state_dict()
    torch.save(state, tmp_path / loading.FILE)
    task = dataclasses.replace(TASK, work="load", variant="file", folder=str(tmp_path))
    (ours,) = loading.make_side(task).advance(1)
    (theirs,) = loading.make_side(dataclasses.replace(task, side="torch-eager")).advance(1)
    weight = state["fc.weight"].numpy()
    np.testing.assert_array_equal(np.asarray(ours.fc.kernel[...]).T, weight)
    np.testing.assert_array_equal(theirs.fc.weight.detach().numpy(), weight)


def test_first_weights_depend_on_names_alone() -> None:
    shapes = {"conv.weight": (4, 3, 3, 3), "bn.weight": (4,), "bn.running_mean": (4,)}
    drawn = data.draw_weights(shapes)
    again = data.draw_weights(dict(reversed(shapes.items())))
    assert all(np.array_equal(drawn[name], again[name]) for name in shapes)
    assert drawn["bn.weight"].tolist() == [1] * 4
    assert drawn["bn.running_mean"].tolist() == [0] * 4
    assert np.std(drawn["conv.weight"]) == pytest.approx(math.sqrt(2 / 27), rel=0.2)


def test_a_batch_too_large_is_refused_before_it_is_tried() -> None:
    with pytest.raises(MemoryError, match=r"more than 1,048,576.0 GiB"):
        require_memory(dataclasses.replace(TASK, needed_bytes=2**50))
    with pytest.raises(MemoryError):
        make("torch-eager", needed_bytes=2**50)


def test_errors_are_one_line() -> None:
    assert worker.explain(MemoryError("much"), TASK) == (
        "out of memory with --batch 4; try a smaller one (much)"
    )
    exhausted = RuntimeError("RESOURCE_EXHAUSTED: Out of memory\nby a lot")
    assert worker.explain(exhausted, TASK).startswith("out of memory with --batch 4")
    assert worker.explain(KeyError("x"), TASK) == "KeyError: 'x'"


def test_pytorchs_peak_on_a_gpu_is_that_since_the_reset(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = mock.Mock()
    monkeypatch.setitem(sys.modules, "torch", mock.Mock(cuda=cuda))
    cuda.max_memory_allocated.return_value = 7
    memory = PeakMemory()
    memory.reset()
    cuda.reset_peak_memory_stats.assert_called_once_with()
    assert memory.bytes() == 7
    cuda.is_initialized.return_value = False
    memory.reset()
    cuda.reset_peak_memory_stats.assert_called_once_with()


def test_the_copy_of_jax_is_one_into_memory_that_is_there() -> None:
    roofline = Roofline(Task("roofline", "jax", "copy"))
    first = roofline._call()
    there = first.unsafe_buffer_pointer()
    second = roofline._call()
    assert first.is_deleted()
    assert second.unsafe_buffer_pointer() == there
    assert np.all(np.asarray(second) == 1)


def test_peak_memory_is_that_since_the_reset() -> None:
    script = """
import numpy as np
from benchmarks.machine import PeakMemory
memory = PeakMemory()
held = np.ones(2**25)
del held
print(memory.bytes())
memory.reset()
print(memory.bytes())
held = np.ones(2**24)
print(memory.bytes())
"""
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, check=True)
    before, reset, after = map(int, process.stdout.split())
    assert before == pytest.approx(2**28, rel=0.02)
    assert reset < 2**22
    assert after == pytest.approx(2**27, rel=0.02)
