"""How the sides' processes are spoken to, and in which order they are asked."""

import contextlib
import dataclasses
import json
import sys

import pytest

from benchmarks.measure import (
    CouldNotMeasureError,
    Measurement,
    Worker,
    interleave,
    measure,
    require_the_same_device,
    require_the_same_results,
)
from benchmarks.task import SkipSideError, Task

HEAD = "import json, os, sys\ntask = json.loads(sys.stdin.readline())\n"
COUNTING = """
print(json.dumps({"ready": {"steps": task["steps"], "imports_s": task["started"]}}), flush=True)
for number, line in enumerate(sys.stdin, start=1):
    print(json.dumps({"seconds": number / 10, "peak_bytes": 7}), flush=True)
"""


GPUS = 'print(json.dumps({"ready": {"gpus": os.environ["CUDA_VISIBLE_DEVICES"]}}))'
TUNABLES = 'print(json.dumps({"ready": {"variable": os.environ.get("GLIBC_TUNABLES")}}))'


def worker(script: str, work: str = "train-step", side: str = "ours") -> Worker:
    return Worker(Task(work, side, steps=3), command=[sys.executable, "-c", HEAD + script])


class Fake:
    """A side that notes that it was asked."""

    def __init__(self, name: str, asked: list[str]) -> None:
        self.name, self.asked = name, asked

    def measure(self) -> dict[str, float]:
        self.asked.append(self.name)
        return {"seconds": float(len(self.asked))}


def test_sides_take_turns() -> None:
    asked: list[str] = []
    told: list[str] = []
    sides = {name: Fake(name, asked) for name in "AB"}
    answers = interleave(sides, 3, told.append)
    assert asked == ["A", "B", "A", "B", "A", "B"]
    assert [answer["seconds"] for answer in answers["A"]] == [1, 3, 5]
    assert [answer["seconds"] for answer in answers["B"]] == [2, 4, 6]
    assert told[2] == "run 2 of 3: A"


def test_a_process_is_told_its_task_and_then_one_run_after_another() -> None:
    with contextlib.closing(worker(COUNTING)) as process:
        ready = process.wait_until_ready()
        assert ready["steps"] == 3
        assert ready["imports_s"] > 1e9  # when it was started
        assert [process.measure()["seconds"] for _ in range(3)] == [0.1, 0.2, 0.3]


@pytest.mark.parametrize(
    ("work", "side", "set_before", "expected"),
    [
        ("train-step", "ours", None, "glibc.malloc.hugetlb=1"),
        ("epoch", "ours", None, "glibc.malloc.hugetlb=1"),
        ("train-step", "ours", "glibc.malloc.check=0", "glibc.malloc.check=0"),
        ("inference", "ours", None, None),
        ("train-step", "flax", None, None),
        ("train-step", "torch-channels-last", None, None),
    ],
)
def test_only_what_the_training_command_does_has_its_large_pages(
    monkeypatch, work: str, side: str, set_before: str | None, expected: str | None
) -> None:
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    if set_before is not None:
        monkeypatch.setenv("GLIBC_TUNABLES", set_before)
    with contextlib.closing(worker(TUNABLES, work, side)) as process:
        assert process.wait_until_ready() == {"variable": expected}


@pytest.mark.parametrize(
    ("of_the_user", "expected"), [(None, "0"), ("2,3", "2"), ("GPU-ab,GPU-cd", "GPU-ab"), ("", "")]
)
def test_every_side_sees_one_gpu(monkeypatch, of_the_user: str | None, expected: str) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if of_the_user is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", of_the_user)
    with contextlib.closing(worker(GPUS)) as process:
        assert process.wait_until_ready() == {"gpus": expected}


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        ('print(json.dumps({"skip": "no compiler"}))', SkipSideError, "^no compiler$"),
        ('print(json.dumps({"error": "bad"}))', CouldNotMeasureError, "^ours: bad$"),
        ("raise KeyError('lost')", CouldNotMeasureError, "ended with status 1: KeyError: 'lost'"),
        ("os.kill(os.getpid(), 9)", CouldNotMeasureError, "killed.*--batch 128 may be too large"),
    ],
)
def test_what_a_process_fails_of_is_told(script: str, error: type[Exception], message: str) -> None:
    with contextlib.closing(worker(script)) as process, pytest.raises(error, match=message):
        process.wait_until_ready()


def measurement(side: str, check: float, platform: str = "cpu") -> Measurement:
    return Measurement(
        Task("train-step", side), device={"platform": platform}, check={"first loss": check}
    )


def test_sides_must_compute_the_same() -> None:
    require_the_same_results([measurement("ours", 2.3), measurement("flax", 2.3001)])
    with pytest.raises(CouldNotMeasureError, match=r"first loss is ours 2.3, flax 2.4"):
        require_the_same_results([measurement("ours", 2.3), measurement("flax", 2.4)])
    with pytest.raises(CouldNotMeasureError, match="don't compute the same"):
        require_the_same_results([measurement("ours", 2.3), measurement("flax", float("nan"))])
    with pytest.raises(CouldNotMeasureError, match="don't compute the same"):
        require_the_same_results([measurement("ours", float("nan")), measurement("flax", 2.3)])


def test_sides_that_differ_are_not_run(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []

    def start(task: Task) -> Worker:
        check = {"first loss": 1.0 if task.side == "ours" else 2.0}
        ready = json.dumps({"ready": {"check": check}})
        return Worker(task, command=[sys.executable, "-c", HEAD + f"print({ready!r})"])

    monkeypatch.setattr("benchmarks.measure.Worker", start)
    with pytest.raises(CouldNotMeasureError, match="don't compute the same"):
        measure([Task("train-step", side) for side in ("ours", "flax")], 1, told.append)
    assert told == ["preparing ours", "preparing flax"]


def test_sides_must_be_on_the_same_device() -> None:
    sides = [measurement("ours", 1.0), measurement("torch-eager", 1.0, "gpu")]
    with pytest.raises(CouldNotMeasureError, match="ours on the cpu, torch-eager on the gpu"):
        require_the_same_device(sides)
    for side in sides:
        side.task = dataclasses.replace(side.task, work="load")
    require_the_same_device(sides)


def test_a_real_process_of_its_own() -> None:
    tasks = [Task("roofline", "numpy", "copy", steps=2)]
    (found,) = measure(tasks, 2, lambda now: None)
    assert len(found.runs) == 2
    assert all(seconds > 0 for seconds in found.runs)
    assert found.ready["bytes"] == 2**28
    assert found.device["platform"] == "cpu"
    # Source and destination, which are there before the first run.
    assert 0.99 * 2**28 < min(found.peaks) < 1.2 * 2**28


def test_a_side_that_is_skipped_leaves_the_others() -> None:
    tasks = [Task("roofline", side, "copy", dtype="bfloat16", steps=1) for side in ("numpy", "jax")]
    skipped, measured = measure(tasks, 1, lambda now: None)
    assert skipped.skipped == "NumPy has no bfloat16"
    assert skipped.runs == []
    assert len(measured.runs) == 1
