"""What a side is asked to do in a run, and what of it is counted."""

import io
import json

import pytest

from benchmarks import worker
from benchmarks.task import Task


def serve(monkeypatch: pytest.MonkeyPatch, task: Task) -> tuple[list[int], list[float]]:
    """The steps that a side of a second a step was asked for, and the seconds of two runs."""
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
    worker.serve(task, io.StringIO("run\nrun\n"), answers)
    _, *runs = map(json.loads, answers.getvalue().splitlines())
    return calls, [run["seconds"] for run in runs]


@pytest.mark.parametrize(
    ("work", "steps", "asked"),
    [
        ("train-step", 1, [1, 1]),
        ("train-step", 7, [5, 7]),
        ("inference", 7, [1, 7]),
        ("input", 7, [7, 7]),
        ("epoch", 3, [3]),
    ],
)
def test_steps_go_before_each_run_and_are_not_counted(
    monkeypatch, work: str, steps: int, asked: list
) -> None:
    calls, seconds = serve(monkeypatch, Task(work, "ours", steps=steps))
    assert calls == [1, *asked, *asked]  # the first is the preparation's
    assert seconds == [1.0, 1.0]


@pytest.mark.parametrize(("work", "asked"), [("train-step", [5, 5]), ("inference", [1, 2])])
def test_a_slow_side_trains_for_several_steps_too(monkeypatch, work: str, asked: list) -> None:
    calls, _ = serve(monkeypatch, Task(work, "torch-eager"))
    assert calls == [1, 1, *asked, *asked]  # the second is timed, to choose how many


@pytest.mark.parametrize(
    ("error", "missing"),
    [
        (RuntimeError("InvalidCxxCompiler: No working C++ compiler found in cpp.cxx"), True),
        (RuntimeError("Failed to find C compiler. Please specify via CC"), True),
        (RuntimeError("Dynamo failed to compile a frame"), False),
        (type("BackendCompilerFailed", (RuntimeError,), {})("backend='inductor' raised"), False),
    ],
)
def test_only_a_missing_compiler_is_no_error(monkeypatch, error: Exception, missing: bool) -> None:
    def fail(*arguments: object) -> None:
        raise error

    told: list[str] = []
    monkeypatch.setattr(worker, "serve", fail)
    monkeypatch.setattr(worker.os, "dup", lambda descriptor: descriptor)
    monkeypatch.setattr(worker.os, "dup2", lambda old, new: None)
    monkeypatch.setattr(worker.os, "fdopen", lambda *arguments, **options: None)
    monkeypatch.setattr(worker, "_answer", lambda answers, **values: told.extend(values))
    task = Task("train-step", "torch-compile")
    monkeypatch.setattr(worker.sys, "stdin", io.StringIO(task.to_json()))
    assert worker.main() == (0 if missing else 1)
    assert told == (["skip"] if missing else ["error"])
