"""What a side is asked to do in a run, and what of it is counted."""

import io
import json

import pytest

from benchmarks import worker
from benchmarks.task import Task


@pytest.mark.parametrize(("work", "asked"), [("train-step", [1, 3]), ("epoch", [3])])
def test_a_step_goes_before_each_run_and_is_not_counted(
    monkeypatch, work: str, asked: list
) -> None:
    calls: list[int] = []
    clock = [0.0]

    class Side:
        def __init__(self, task: Task) -> None:
            pass

        def advance(self, steps: int) -> list[float]:
            calls.append(steps)
            clock[0] += steps
            return [1.0] * steps

    monkeypatch.setattr(worker, "import_side", lambda task: Side)
    monkeypatch.setattr(worker, "describe_device", dict)
    monkeypatch.setattr(worker.time, "perf_counter", lambda: clock[0])
    answers = io.StringIO()
    worker.serve(Task(work, "ours", steps=3), io.StringIO("run\nrun\n"), answers)
    assert calls == [1, *asked, *asked]  # the first is the preparation's
    _, *runs = map(json.loads, answers.getvalue().splitlines())
    assert [run["seconds"] for run in runs] == [1.0, 1.0]
