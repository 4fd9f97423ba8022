"""A ``.pth`` file into a network, and what importing the package adds to its framework.

Nothing is imported by this module itself: what a side imports before it is measured, and what only
then, is the point.
"""

import importlib
from typing import Any

from benchmarks.task import Task

FILE = "weights.pth"


class OursFile:
    """``flaxnets.load_torch``, which builds the network and reads the file."""

    def __init__(self, task: Task) -> None:
        import torch  # noqa: F401  reads the file; on this side too it is not what is measured

        import flaxnets  # noqa: F401

        self._task = task

    def advance(self, steps: int) -> list[Any]:
        """Load the file so many times."""
        import jax
        from flax import nnx

        import flaxnets

        task, models = self._task, []
        for _ in range(steps):
            model = flaxnets.load_torch(f"{task.folder}/{FILE}", task.arch, **task.options)
            jax.block_until_ready(nnx.state(model))
            models.append(model)
        return models


class TorchFile:
    """The module is built, and takes what ``torch.load`` reads."""

    def __init__(self, task: Task) -> None:
        import torchref  # noqa: F401

        self._task = task

    def advance(self, steps: int) -> list[Any]:
        """Load the file so many times."""
        import torch

        import torchref

        task, modules = self._task, []
        for _ in range(steps):
            module = torchref.create(task.arch, **task.options)
            module.load_state_dict(torch.load(f"{task.folder}/{FILE}", weights_only=True))
            modules.append(module)
        return modules


class Import:
    """``import flaxnets`` where jax and flax are imported already; or torchvision after torch."""

    def __init__(self, task: Task) -> None:
        before = ("jax", "jax.numpy", "flax.nnx") if task.side == "ours" else ("torch",)
        for name in before:
            importlib.import_module(name)
        self._name = "flaxnets" if task.side == "ours" else "torchvision"

    def advance(self, steps: int) -> list[Any]:
        """Import the package, once."""
        del steps
        return [importlib.import_module(self._name)]


def make_side(task: Task) -> Any:
    """The side of a task whose work is "load"."""
    if task.variant == "import":
        return Import(task)
    return OursFile(task) if task.side == "ours" else TorchFile(task)
