"""A whole comparison: the machine's limits, then every network, batch and variant."""

import dataclasses
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.loading import FILE
from benchmarks.machine import load_average
from benchmarks.measure import CouldNotMeasureError, Measurement, Progress, measure
from benchmarks.plan import Group, Options, make_groups
from benchmarks.records import Ratio, Record, fastest, head, make_record, make_records, ratios
from benchmarks.task import WORKS, Task

_LIMIT_RUNS = 3


@dataclasses.dataclass(frozen=True)
class Result:
    """What was measured.

    Attributes:
        head: command, versions, device, cores, date.
        records: one of each side in each group.
        ratios: between them.
        skipped: the sides that could not be measured: ``side``, ``reason``.
        limits: the fastest matrix product and copy of this machine; empty if nobody wanted them.
    """

    head: dict[str, Any]
    records: list[Record]
    ratios: list[Ratio]
    skipped: list[dict[str, str]]
    limits: list[Record]

    def document(self) -> dict[str, Any]:
        """In a form that ``json.dumps`` takes."""
        return dataclasses.asdict(self)


def run(options: Options, progress: Progress, *, with_limits: bool = True) -> Result:
    """Measure everything that the options ask for.

    Args:
        options: what to measure.
        progress: is told what happens now.
        with_limits: measure the machine's too.

    Raises:
        CouldNotMeasureError: the options can't be, or a side failed.
    """
    records: list[Record] = []
    skipped: dict[str, str] = {}
    load = load_average()
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        groups = make_groups(options, folder)
        limits: list[Record] = []
        if with_limits and options.work != "roofline":
            limits = _limits(options, progress)
        device: dict[str, Any] = {}
        for group in groups:
            for each in _measure_group(group, options, progress):
                if each.skipped is not None:
                    skipped[each.task.side] = each.skipped
                    continue
                device = each.device
                records += make_records(each, group.multiply_adds)
    return Result(
        head=head(options, device, load),
        records=records,
        ratios=ratios(records),
        skipped=[{"side": side, "reason": reason} for side, reason in skipped.items()],
        limits=limits,
    )


def _measure_group(group: Group, options: Options, progress: Progress) -> list[Measurement]:
    task = group.tasks[0]
    if task.work == "load":
        _write_weights(task)
    what = " ".join(filter(None, [task.arch, task.variant, f"batch {task.batch}"]))
    runs = options.runs or WORKS[options.work].runs
    return measure(group.tasks, runs, lambda now: progress(f"{what}: {now}"))


def _write_weights(task: Task) -> None:
    """The file that the sides of "load" are to read."""
    try:
        import torch

        import torchref
    except ImportError as error:
        raise CouldNotMeasureError(
            f"{error.name} is not installed, and a .pth file needs it: "
            'pip install "flaxnets[parity]"'
        ) from None
    module = torchref.create(task.arch, **task.options)
    torch.save(module.state_dict(), Path(task.folder) / FILE)


def _limits(options: Options, progress: Progress) -> list[Record]:
    """The best of NumPy's, JAX's and PyTorch's product and copy, as one record each."""
    limits = []
    for group in make_groups(Options("roofline", dtype=options.dtype, sides=_installed())):
        measured = measure(group.tasks, _LIMIT_RUNS, lambda now: progress(f"the machine: {now}"))
        records = [make_record(each, 0) for each in measured if each.skipped is None]
        limits.append(fastest(records))
    return limits


def _installed() -> tuple[str, ...]:
    from importlib.util import find_spec

    return tuple(side for side in WORKS["roofline"].sides if find_spec(side) is not None)
