"""Interleaved runs of several sides, each in a process of its own."""

import contextlib
import dataclasses
import json
import math
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from benchmarks.task import WORKS, SkipSideError, Task
from train import large_pages

ROOT = Path(__file__).parents[1]
# How far the sides' first losses (or logits) may be apart: more is another network.
AGREEMENT = {"float32": 1e-3, "tf32": 2e-2, "bfloat16": 1e-1}

# PyTorch reads a file into main memory even where there is a GPU, and NumPy computes there.
ANYWHERE = ("load", "roofline")

# What ``python -m train.cifar`` does, which asks for large pages.
TRAINING = ("train-step", "convolutions", "input", "compile", "memory", "epoch")

Progress = Callable[[str], None]


class CouldNotMeasureError(Exception):
    """Nothing can be compared, for a reason that the message tells."""


@dataclasses.dataclass
class Measurement:
    """What came of one side's task.

    Attributes:
        task: the task.
        runs: seconds of a step (or whatever the work's unit is) in each run.
        parts: of ``convolutions``, seconds of each pass by its name, one dictionary for each run.
        peaks: the most memory by the end of each run, in bytes.
        ready: what the side's process said when it was ready: ``imports_s``, ``warm_up_s``,
            ``steps``, and of a machine's measurement ``flops`` or ``bytes`` of a call.
        device: what it computed on.
        check: numbers, by what they are of, that all sides of the work have to agree on.
        skipped: why the side could not be measured; None where it was.
    """

    task: Task
    runs: list[float] = dataclasses.field(default_factory=list)
    parts: list[dict[str, float]] = dataclasses.field(default_factory=list)
    peaks: list[int] = dataclasses.field(default_factory=list)
    ready: dict[str, Any] = dataclasses.field(default_factory=dict)
    device: dict[str, Any] = dataclasses.field(default_factory=dict)
    check: dict[str, float] = dataclasses.field(default_factory=dict)
    skipped: str | None = None


class Measured(Protocol):
    """A side that measures one run when asked."""

    def measure(self) -> dict[str, Any]:
        """One run: ``seconds``, ``peak_bytes``, ``device``."""


class Worker:
    """A side's process.

    Args:
        task: what it is to do.
        environment: variables that it has beside this process's.
        command: the program, which speaks as ``benchmarks.worker`` does.
    """

    def __init__(
        self,
        task: Task,
        environment: Mapping[str, str] | None = None,
        command: Sequence[str] = (sys.executable, "-m", "benchmarks.worker"),
    ) -> None:
        self.task = task
        self._errors = tempfile.TemporaryFile("w+")  # noqa: SIM115  closed in close
        path = os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH")]))
        defaults = {
            # The sides take turns on one GPU, and none may keep the others from its memory.
            "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        }
        # The first: this project's side would take all, and the others one.
        gpu = os.environ.get("CUDA_VISIBLE_DEVICES", "0").partition(",")[0]
        if task.side == "ours" and task.work in TRAINING:
            defaults |= large_pages.ENVIRONMENT
        started = time.time()
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=defaults
            | dict(os.environ)
            | {"PYTHONPATH": path, "CUDA_VISIBLE_DEVICES": gpu}
            | dict(environment or {}),
        )
        self._send(dataclasses.replace(task, started=started).to_json())

    def wait_until_ready(self) -> dict[str, Any]:
        """What the process says when it has prepared its side.

        Raises:
            SkipSideError: it can't be measured here.
            CouldNotMeasureError: it failed.
        """
        return self._answer()["ready"]

    def measure(self) -> dict[str, Any]:
        """One run; raises as :meth:`wait_until_ready` does."""
        self._send("run")
        return self._answer()

    def close(self) -> None:
        """End the process."""
        with contextlib.suppress(OSError):
            self._process.stdin.close()  # type: ignore[union-attr]
        try:
            self._process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
        self._errors.close()

    def _send(self, line: str) -> None:
        with contextlib.suppress(BrokenPipeError):  # its answer will tell why
            self._process.stdin.write(line + "\n")  # type: ignore[union-attr]
            self._process.stdin.flush()  # type: ignore[union-attr]

    def _answer(self) -> dict[str, Any]:
        line = self._process.stdout.readline()  # type: ignore[union-attr]
        answer = json.loads(line) if line else {"error": self._last_words()}
        if "skip" in answer:
            raise SkipSideError(answer["skip"])
        if "error" in answer:
            raise CouldNotMeasureError(f"{self.task.side}: {answer['error']}")
        return answer

    def _last_words(self) -> str:
        status = self._process.wait()
        if status == -9:
            return (
                f"its process was killed, probably for want of memory; --batch {self.task.batch} "
                "may be too large"
            )
        self._errors.seek(0)
        lines = self._errors.read().strip().splitlines() or ["it said nothing"]
        return f"its process ended with status {status}: {lines[-1]}"


def interleave(
    sides: Mapping[str, Measured], runs: int, progress: Progress
) -> dict[str, list[dict[str, Any]]]:
    """Have every side measure a run, then every side another: A B A B.

    Whatever else slows the machine for a while then slows all of them.
    """
    answers: dict[str, list[dict[str, Any]]] = {name: [] for name in sides}
    for number in range(1, runs + 1):
        for name, side in sides.items():
            progress(f"run {number} of {runs}: {name}")
            answers[name].append(side.measure())
    return answers


def measure(tasks: Sequence[Task], runs: int, progress: Progress) -> list[Measurement]:
    """Measure all sides of one work, variant and network.

    Args:
        tasks: one of each side.
        runs: of each side.
        progress: is told what happens now.

    Raises:
        CouldNotMeasureError: a side failed, or they don't compute the same or on the same device.
    """
    measurements = {task.side: Measurement(task) for task in tasks}
    with contextlib.ExitStack() as stack:
        fresh = WORKS[tasks[0].work].fresh
        prepare = _Starter if fresh else _start
        sides: dict[str, Measured] = {}
        for task in tasks:
            progress(f"preparing {task.side}")
            try:
                sides[task.side] = prepare(task, measurements[task.side], stack)
            except SkipSideError as error:
                measurements[task.side].skipped = str(error)
        require_the_same_results(list(measurements.values()))
        for name, answers in interleave(sides, runs, progress).items():
            each = measurements[name]
            each.runs = [answer["seconds"] for answer in answers]
            each.parts = [answer["parts"] for answer in answers if "parts" in answer]
            each.peaks = [answer["peak_bytes"] for answer in answers]
            each.device = answers[-1]["device"]
    require_the_same_device(list(measurements.values()))
    return list(measurements.values())


def require_the_same_device(measurements: Sequence[Measurement]) -> None:
    """Raise ``CouldNotMeasureError`` where sides computed on different devices."""
    measured = [each for each in measurements if each.skipped is None]
    platforms = {each.device["platform"]: each.task.side for each in measured}
    if len(platforms) > 1 and measured[0].task.work not in ANYWHERE:
        where = ", ".join(f"{side} on the {platform}" for platform, side in platforms.items())
        raise CouldNotMeasureError(
            f"the sides computed on different devices ({where}): install both frameworks for the "
            "GPU, or set JAX_PLATFORMS=cpu"
        )


def require_the_same_results(measurements: Sequence[Measurement]) -> None:
    """Raise ``CouldNotMeasureError`` where sides computed different things."""
    measured = [each for each in measurements if each.check]
    for name in measured[0].check if measured else ():
        numbers = {each.task.side: each.check[name] for each in measured}
        first = numbers[measured[0].task.side]
        tolerance = AGREEMENT[measured[0].task.dtype]
        if not all(math.isclose(each, first, rel_tol=tolerance) for each in numbers.values()):
            found = ", ".join(f"{side} {number:.6g}" for side, number in numbers.items())
            raise CouldNotMeasureError(
                f"the sides don't compute the same: with the same weights and pictures the {name} "
                f"is {found}"
            )


def _start(task: Task, measurement: Measurement, stack: contextlib.ExitStack) -> Measured:
    """A process for all runs, ready for the first."""
    worker = stack.enter_context(contextlib.closing(Worker(task)))
    measurement.ready = worker.wait_until_ready()
    measurement.check = measurement.ready.get("check", {})
    return worker


class _Starter:
    """A side that has a new process for every run."""

    def __init__(self, task: Task, measurement: Measurement, stack: contextlib.ExitStack) -> None:
        self._task, self._measurement = task, measurement
        self._imports: list[float] = []
        self._cache = Path(tempfile.mkdtemp(prefix="benchmarks-"))
        stack.callback(shutil.rmtree, self._cache, ignore_errors=True)
        self.measure()  # fills caches: a warm start's, and the system's of files
        self._imports.clear()

    def measure(self) -> dict[str, Any]:
        """Start a process, and have it measure its one run."""
        environment = {}
        if self._task.work == "compile":
            warm = self._task.variant == "warm"
            if not warm:
                shutil.rmtree(self._cache, ignore_errors=True)
            environment = {
                "JAX_ENABLE_COMPILATION_CACHE": str(warm).lower(),
                "JAX_COMPILATION_CACHE_DIR": str(self._cache / "jax"),
                "TORCHINDUCTOR_CACHE_DIR": str(self._cache / "torch"),
            }
        with contextlib.closing(Worker(self._task, environment)) as worker:
            ready = worker.wait_until_ready()
            answer = worker.measure()
        self._imports.append(ready["imports_s"])
        self._measurement.ready = ready | {
            "imports_s": sorted(self._imports)[len(self._imports) // 2]
        }
        self._measurement.check = ready.get("check", {})
        return answer
