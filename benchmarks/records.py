"""Measurements as records, the ratios between them, and the document that holds both."""

import dataclasses
import datetime
import importlib.metadata
import json
import platform
import shlex
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.convolutions import count_parts, layers_of, totals
from benchmarks.machine import cores
from benchmarks.measure import Measurement
from benchmarks.plan import Options
from benchmarks.task import WORKS

PACKAGES = ("flaxnets", "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision")
BEST_TORCH = "PyTorch's best"
PLAIN_FLAX = "plain Flax"


@dataclasses.dataclass(frozen=True)
class Record:
    """One side's numbers in one work.

    Attributes:
        work: a key of ``WORKS``.
        variant: of the work; "" where it has none.
        arch: a network's name; "" of a machine's own.
        batch: pictures in a batch.
        input: height and width of the pictures, such as "32x32".
        dtype: what was computed in.
        side: who was measured.
        median_s: the median of ``runs``.
        min_s: the least of them.
        spread: between the runs' quartiles, as a share of the median.
        runs: seconds of a step (or the work's unit), one for each run.
        steps: in a run.
        peak_bytes: the most memory beyond the imports, the median over the runs.
        images_per_second: at the median; None where no pictures go through.
        gflops: 1e9 floating-point operations a second, of convolutions, linear layers and matrix
            products, two for each multiply-add; None where there are none.
        gigabytes_per_second: read and written, of copies only.
        imports_s: from the start of the process to the end of its imports.
        warm_up_s: preparing and compiling, where that is not what is measured.
    """

    work: str
    variant: str
    arch: str
    batch: int
    input: str
    dtype: str
    side: str
    median_s: float
    min_s: float
    spread: float
    runs: list[float]
    steps: int
    peak_bytes: int
    images_per_second: float | None
    gflops: float | None
    gigabytes_per_second: float | None
    imports_s: float
    warm_up_s: float | None

    @property
    def group(self) -> tuple[str, str, str, int, str, str]:
        """What sides that are compared with one another have in common."""
        return (self.work, self.variant, self.arch, self.batch, self.input, self.dtype)

    @property
    def cost(self) -> float:
        """What is compared, and better if less: peak memory or time."""
        return self.peak_bytes if WORKS[self.work].by_memory else self.median_s


@dataclasses.dataclass(frozen=True)
class Ratio:
    """How many times as good a side is as a reference: above 1 is faster, or less memory.

    Attributes:
        work: as of the records.
        variant: likewise.
        arch: likewise.
        batch: likewise.
        input: likewise.
        dtype: likewise.
        side: whose.
        to: ``BEST_TORCH`` or ``PLAIN_FLAX``.
        reference: the side that this is.
        ratio: the reference's median over the side's.
    """

    work: str
    variant: str
    arch: str
    batch: int
    input: str
    dtype: str
    side: str
    to: str
    reference: str
    ratio: float

    @property
    def key(self) -> tuple[Any, ...]:
        """What it is the ratio of, whichever mode of PyTorch's was best."""
        same = (self.work, self.variant, self.arch, self.batch, self.input, self.dtype)
        return (*same, self.side, self.to)


def make_records(measurement: Measurement, multiply_adds: int) -> list[Record]:
    """The numbers of a side that was measured: one record, or one for each pass of a convolution.

    Args:
        measurement: one that was not skipped.
        multiply_adds: of one picture's forward pass.
    """
    if measurement.task.work != "convolutions":
        return [make_record(measurement, multiply_adds)]
    layers = layers_of(measurement.task)
    runs = [parts | dict(totals(layers, parts)) for parts in measurement.parts]
    return [
        make_record(
            dataclasses.replace(
                measurement,
                task=dataclasses.replace(measurement.task, variant=name),
                runs=[run[name] for run in runs],
            ),
            operations,
        )
        for name, operations in count_parts(layers).items()
    ]


def make_record(measurement: Measurement, multiply_adds: int) -> Record:
    """The numbers of a side that was measured.

    Args:
        measurement: one that was not skipped.
        multiply_adds: of one picture's forward pass; of what was measured, if it is less.
    """
    task, runs, ready = measurement.task, measurement.runs, measurement.ready
    work = WORKS[task.work]
    median = statistics.median(runs)
    images, flops = 0, ready.get("flops", 0)
    if work.unit in ("step", "batch"):
        images = task.batch
        flops = 2 * multiply_adds * work.passes * images
    elif work.unit == "pass":
        flops = 2 * multiply_adds * task.batch
    elif work.unit == "epoch":
        images = task.pictures // task.batch * task.batch
        flops = 2 * multiply_adds * (work.passes * images + task.tests)
    return Record(
        work=task.work,
        variant=task.variant,
        arch=task.arch,
        batch=task.batch,
        input=f"{task.height}x{task.width}",
        dtype=task.dtype,
        side=task.side,
        median_s=median,
        min_s=min(runs),
        spread=spread(runs),
        runs=runs,
        steps=ready["steps"],
        peak_bytes=round(statistics.median(measurement.peaks)),
        images_per_second=images / median if images else None,
        gflops=flops / median / 1e9 if flops else None,
        gigabytes_per_second=ready["bytes"] / median / 1e9 if ready.get("bytes") else None,
        imports_s=ready["imports_s"],
        warm_up_s=ready.get("warm_up_s"),
    )


def spread(runs: Sequence[float]) -> float:
    """The distance between the quartiles as a share of the median; 0 of a single run."""
    if len(runs) < 2:
        return 0.0
    low, _, high = statistics.quantiles(runs, n=4, method="inclusive")
    return (high - low) / statistics.median(runs)


def fastest(records: Sequence[Record]) -> Record:
    """The one with the highest rate: on a GPU a call does more than on a CPU beside it."""
    return max(records, key=lambda record: record.gflops or record.gigabytes_per_second or 0.0)


def ratios(records: Sequence[Record]) -> list[Ratio]:
    """Every side against the best of PyTorch's, and against plain Flax, within its group."""
    found = []
    for record in records:
        rivals = [other for other in records if other.group == record.group]
        of_torch = [other for other in rivals if other.side.startswith("torch")]
        of_flax = [other for other in rivals if other.side == "flax"]
        for name, references in ((BEST_TORCH, of_torch), (PLAIN_FLAX, of_flax)):
            if references and record.work != "roofline" and record.cost > 0:
                best = min(references, key=lambda other: other.cost)
                found.append(
                    Ratio(*record.group, record.side, name, best.side, best.cost / record.cost)
                )
    return found


def head(options: Options, device: dict[str, Any], load: float | None) -> dict[str, Any]:
    """What was run, with what, on what and when.

    Args:
        options: what was measured.
        device: what the sides computed on.
        load: the machine's load average before.
    """
    return {
        "command": shlex.join(["python", "-m", "benchmarks", *sys.argv[1:]]),
        "options": options.to_dict(),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "device": device,
        "cores": cores(),
        "load_average": load,
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in PACKAGES},
    }


def write_document(file: Path, document: dict[str, Any]) -> None:
    """Write a document as JSON; the file is replaced only once it is complete."""
    temporary = file.with_name(f".{file.name}")
    temporary.write_text(json.dumps(document, indent=1) + "\n")
    temporary.replace(file)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
