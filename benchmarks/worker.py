"""One side's process: it prepares its side, and measures a run whenever it is told to.

It reads its task and then "run" lines from standard input, and answers each with a line of JSON:
first ``{"ready": ...}``, then ``{"seconds": ..., "peak_bytes": ...}``; or ``{"skip": reason}`` or
``{"error": message}``, and ends.
"""

import importlib
import json
import os
import sys
import time
from typing import Any, TextIO

import numpy as np

from benchmarks.machine import PeakMemory, describe_device
from benchmarks.task import SkipSideError, Task

RUN_SECONDS = 2.0  # about as long is a run whose steps the user hasn't chosen
FEWEST_STEPS = 5  # of training in a run, however slow the side
# A run's first steps find memory and caches as the other sides left them. So many aren't counted.
UNCOUNTED = {"train-step": FEWEST_STEPS, "inference": 1, "roofline": 1}
_CLASSES = {
    "train-step": "Training",
    "memory": "Training",
    "compile": "Training",
    "inference": "Inference",
    "convolutions": "Convolutions",
    "input": "Input",
    "epoch": "Epoch",
}
_MODULES = {"ours": "benchmarks.ours", "flax": "benchmarks.flax_side"}
# What PyTorch, or its Triton, raises or says where it finds none.
_NO_COMPILER = ("InvalidCxxCompiler", "TritonMissing", "Failed to find C compiler")


def main() -> int:
    """Serve the parent; returns the exit status."""
    # What libraries print must not get into the answers.
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)
    task = Task.from_json(sys.stdin.readline())
    try:
        serve(task, sys.stdin, answers)
    except SkipSideError as error:
        _answer(answers, skip=str(error))
    except Exception as error:
        if task.side == "torch-compile" and lacks_compiler(error):
            _answer(answers, skip=f"torch.compile found no compiler: {_short(error)}")
            return 0
        _answer(answers, error=explain(error, task))
        return 1
    return 0


def serve(task: Task, requests: TextIO, answers: TextIO) -> None:
    """Prepare the task's side, then measure a run for every line of ``requests``."""
    make_side = import_side(task)
    imports = time.time() - task.started
    memory = PeakMemory()
    if task.work == "compile":
        _answer(answers, ready={"imports_s": imports, "steps": 1})
        requests.readline()
        make_side(task).advance(1)
        seconds = time.time() - task.started
        _answer(answers, seconds=seconds, peak_bytes=memory.bytes(), device=describe_device())
        return
    begun = time.perf_counter()
    side = make_side(task)
    ready: dict[str, Any] = {"imports_s": imports}
    steps = 1
    if task.work == "load":
        memory = PeakMemory()
    else:
        outputs = side.advance(1)
        # An epoch's pictures come in an order of the side's own.
        ready["check"] = {} if task.work == "epoch" else checked(outputs)
        steps = task.steps or choose_steps(task, side)
    memory.reset()
    ready |= {"warm_up_s": time.perf_counter() - begun, "steps": steps}
    ready |= {name: getattr(side, name) for name in ("flops", "bytes") if hasattr(side, name)}
    _answer(answers, ready=ready)
    uncounted = choose_uncounted(task, steps)
    for _ in requests:
        if uncounted:
            side.advance(uncounted)
        begun = time.perf_counter()
        made = len(side.advance(steps))
        seconds = (time.perf_counter() - begun) / made
        measured = {"parts": side.parts} if task.work == "convolutions" else {}
        measured |= {"seconds": seconds, "peak_bytes": memory.bytes()}
        _answer(answers, **measured, device=describe_device())


def import_side(task: Task) -> Any:
    """Import what the side needs; returns what makes it."""
    if task.work == "load":
        return importlib.import_module("benchmarks.loading").make_side
    if task.work == "roofline":
        return importlib.import_module("benchmarks.roofline").Roofline
    module = importlib.import_module(_MODULES.get(task.side, "benchmarks.torch_side"))
    return getattr(module, _CLASSES[task.work])


def choose_steps(task: Task, side: Any) -> int:
    """As many steps as take about ``RUN_SECONDS``, ``FEWEST_STEPS`` of training; one epoch."""
    if task.work == "epoch":
        return 1
    begun = time.perf_counter()
    made = len(side.advance(1))
    seconds = (time.perf_counter() - begun) / made
    fewest = FEWEST_STEPS if task.work == "train-step" else 1
    return max(fewest, round(RUN_SECONDS / seconds))


def choose_uncounted(task: Task, steps: int) -> int:
    """Steps that go before a run of so many."""
    if task.work == "input":
        return steps  # a loader's processes are there once it has made as many batches
    return min(steps, UNCOUNTED.get(task.work, 0))


def checked(outputs: list[Any]) -> dict[str, float]:
    """Numbers that are the same for every side: of the first loss, logits or passes."""
    first = outputs[0]
    if first is None or isinstance(first, dict):
        return first or {}
    return {"first loss (or logits' size)": float(np.abs(np.asarray(first, np.float64)).mean())}


def lacks_compiler(error: Exception) -> bool:
    """Whether ``torch.compile`` failed for want of a compiler."""
    text = f"{type(error).__name__}: {error}"
    return any(part in text for part in _NO_COMPILER)


def explain(error: Exception, task: Task) -> str:
    """One line of what went wrong."""
    text = _short(error)
    short_of_memory = (
        "RESOURCE_EXHAUSTED",
        "out of memory",
        "can't allocate",
        "Unable to allocate",
    )
    if isinstance(error, MemoryError) or any(part in str(error) for part in short_of_memory):
        return f"out of memory with --batch {task.batch}; try a smaller one ({text})"
    return text if isinstance(error, ValueError) else f"{type(error).__name__}: {text}"


def _short(error: Exception) -> str:
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]


def _answer(answers: TextIO, **values: Any) -> None:
    answers.write(json.dumps(values) + "\n")
    answers.flush()


if __name__ == "__main__":
    sys.exit(main())
