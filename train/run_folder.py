"""The folder of a run: config.json, metrics.jsonl, curves.png and the checkpoints."""

import dataclasses
import hashlib
import json
import os
import platform
from importlib import metadata
from pathlib import Path
from typing import Any, Self

import jax
import numpy as np

from train.datasets import Dataset
from train.recipes import Config

Metric = dict[str, Any]


class RunFolder:
    """A folder that holds one run; made by :meth:`create`, found again by :meth:`open`."""

    def __init__(self, path: Path, record: dict[str, Any]) -> None:
        self.path = path
        self.record = record
        self.metrics = _read_metrics(path / "metrics.jsonl")

    @classmethod
    def create(cls, path: Path, config: Config, dataset: Dataset, data_dir: Path) -> Self:
        """Begin a run in a folder that holds none yet.

        Raises:
            FileExistsError: it holds one already.
        """
        if (path / "config.json").exists():
            raise FileExistsError(
                f"{path} already holds a run; continue it with --resume --out {path}, "
                "or give another --out"
            )
        record = {
            "config": dataclasses.asdict(config),
            "data": {
                "dir": str(data_dir.absolute()),
                "train_images": list(dataset.train_images.shape),
                "test_images": list(dataset.test_images.shape),
                "fingerprint": fingerprint(dataset),
            },
            "versions": {"python": platform.python_version()}
            | {name: metadata.version(name) for name in ("jax", "flax", "optax", "numpy")},
            "device": describe_device(),
        }
        path.mkdir(parents=True, exist_ok=True)
        write_text(path / "metrics.jsonl", "")
        write_text(path / "config.json", json.dumps(record, indent=2) + "\n")
        return cls(path, record)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Find a run again.

        Raises:
            FileNotFoundError: the folder holds no run.
            ValueError: its config.json can't be understood.
        """
        file = path / "config.json"
        if not file.exists():
            raise FileNotFoundError(f"{path} holds no run to resume: there is no config.json")
        try:
            return cls(path, json.loads(file.read_text()))
        except ValueError as error:
            raise ValueError(f"{file} is damaged: {error}") from error

    @property
    def config(self) -> Config:
        """The run's configuration.

        Raises:
            ValueError: config.json lacks a field, or has one that isn't known.
        """
        try:
            values = self.record["config"]
            return Config(**(values | {"milestones": tuple(values["milestones"])}))
        except (KeyError, TypeError) as error:
            raise ValueError(f"{self.path / 'config.json'} is damaged: {error}") from error

    @property
    def data_dir(self) -> Path:
        """Where the data set's files were."""
        return Path(self.record["data"]["dir"])

    @property
    def curves(self) -> Path:
        """The picture of the curves."""
        return self.path / "curves.png"

    def checkpoints(self, kind: str) -> Path:
        """The folder of the "last" or the "best" checkpoint."""
        return self.path / "checkpoints" / kind

    def append(self, *lines: Metric) -> None:
        """Add lines to metrics.jsonl, and see them to the disk."""
        self.metrics.extend(lines)
        with (self.path / "metrics.jsonl").open("a") as file:
            file.writelines(json.dumps(line) + "\n" for line in lines)
            file.flush()
            os.fsync(file.fileno())

    def forget_after(self, step: int) -> None:
        """Drop the lines of steps later than ``step``; they will be made again."""
        self.metrics = [line for line in self.metrics if line["step"] <= step]
        text = "".join(json.dumps(line) + "\n" for line in self.metrics)
        write_text(self.path / "metrics.jsonl", text)

    def epochs(self) -> list[tuple[Metric, Metric]]:
        """The lines of kind "train" and "test" of each finished epoch."""
        trained = {line["epoch"]: line for line in self.metrics if line["kind"] == "train"}
        return [(trained[line["epoch"]], line) for line in self.tested()]

    def tested(self) -> list[Metric]:
        """The lines of kind "test", one an epoch."""
        return [line for line in self.metrics if line["kind"] == "test"]


def _read_metrics(file: Path) -> list[Metric]:
    """Read metrics.jsonl up to a line that a crash cut short."""
    lines: list[Metric] = []
    if file.exists():
        for text in file.read_text().splitlines():
            try:
                lines.append(json.loads(text))
            except json.JSONDecodeError:
                break
    return lines


def write_text(file: Path, text: str) -> None:
    """Write a whole file or, if something goes wrong, none."""
    temporary = file.with_name(f".{file.name}.tmp")
    with temporary.open("w") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    temporary.replace(file)


def fingerprint(dataset: Dataset) -> str:
    """A short hash of the training and test arrays."""
    digest = hashlib.blake2b(digest_size=8)
    for array in (
        dataset.train_images,
        dataset.train_labels,
        dataset.test_images,
        dataset.test_labels,
    ):
        digest.update(np.ascontiguousarray(array).data)
    return digest.hexdigest()


def describe_device() -> dict[str, Any]:
    """What the run computes on; results are bit-identical only on the same."""
    device = jax.devices()[0]
    return {
        "platform": device.platform,
        "kind": device.device_kind,
        "count": jax.device_count(),
        "cpu_cores": os.cpu_count(),
    }
