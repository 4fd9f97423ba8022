"""PyTorch's sides: ``torchref``'s or torchvision's modules, trained as PyTorch's users do.

``torch-eager`` is PyTorch as it comes, ``torch-channels-last`` has pictures and weights in that
memory format, ``torch-compile`` has it too and goes through ``torch.compile``.
"""

import contextlib
import os
import shutil
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import torchref
from benchmarks import convolutions, data
from benchmarks.convolutions import FORWARD, OF_INPUT, OF_KERNEL, Convolution, Pass
from benchmarks.machine import require_memory
from benchmarks.pictures import make_loader
from benchmarks.task import SkipSideError, Task

TUTORIAL_WORKERS = 2


def find_device() -> torch.device:
    """The GPU, unless there is none or the user has confined JAX to the CPU."""
    cpu = os.environ.get("JAX_PLATFORMS", "").lower() == "cpu"
    return torch.device("cuda" if torch.cuda.is_available() and not cpu else "cpu")


def prepare_device(task: Task, device: torch.device) -> None:
    """Have a GPU compute as the task says, by cuDNN's fastest algorithms; see to a CPU's memory.

    Raises:
        MemoryError: a batch is too large for this machine.
    """
    if device.type == "cpu":
        require_memory(task)
    if device.type == "cuda":
        tf32 = task.dtype == "tf32"
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        torch.backends.cudnn.allow_tf32 = tf32
        torch.backends.cudnn.benchmark = True


class _Base:
    """The network on its device, in its memory format and precision."""

    def __init__(self, task: Task) -> None:
        self.device = find_device()
        self._task = task
        prepare_device(task, self.device)
        module = torchref.create(task.arch, **task.options)
        if task.work != "compile":  # which is measured with the network's own first weights
            _set_weights(module)
        self._format = torch.contiguous_format
        if task.side in ("torch-channels-last", "torch-compile"):
            self._format = torch.channels_last
        module = module.to(self.device)
        self.module: nn.Module = module.to(memory_format=self._format)
        self._network: Any = self.module
        if task.side == "torch-compile":
            _require_compiler(self.device)
            self._network = torch.compile(self.module)

    def _autocast(self) -> contextlib.AbstractContextManager[Any]:
        if self._task.dtype == "bfloat16":
            return torch.autocast(self.device.type, torch.bfloat16)
        return contextlib.nullcontext()

    def _to_device(self, images: torch.Tensor, labels: torch.Tensor) -> tuple[Any, Any]:
        images = images.to(self.device, memory_format=self._format, non_blocking=True)
        return images, labels.to(self.device, non_blocking=True)

    def _batches(self) -> list[tuple[Any, Any]]:
        images, labels = data.batches(self._task)
        planes = torch.from_numpy(images).permute(0, 1, 4, 2, 3).contiguous()
        return [
            self._to_device(*batch)
            for batch in zip(planes, torch.from_numpy(labels).long(), strict=True)
        ]

    def _synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()


class Training(_Base):
    """Training steps on pictures that lie on the device."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.module.train()
        self._optimizer = torch.optim.SGD(self.module.parameters(), **task.sgd)
        self._on_device = self._batches()

    def advance(self, steps: int) -> list[float]:
        """Make so many updates; the loss before each."""
        batches = self._on_device
        return self._train(batches[number % data.BATCHES] for number in range(steps))

    def parameters(self) -> dict[str, np.ndarray]:
        """Copies by name."""
        named = self.module.named_parameters()
        return {name: value.numpy(force=True).copy() for name, value in named}

    def _train(self, batches: Iterable[tuple[Any, Any]]) -> list[float]:
        losses = []
        for images, labels in batches:
            self._optimizer.zero_grad()
            with self._autocast():
                loss = functional.cross_entropy(self._network(images), labels)
            loss.backward()
            self._optimizer.step()
            losses.append(loss.detach())
        return torch.stack(losses).tolist()


class Inference(_Base):
    """The forward pass in evaluation mode."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self.module.eval()
        self._on_device = self._batches()

    def advance(self, steps: int) -> list[np.ndarray]:
        """So many batches, one after the other; the logits of each."""
        outputs = []
        with torch.inference_mode(), self._autocast():
            for number in range(steps):
                outputs.append(self._network(self._on_device[number % data.BATCHES][0]))
                self._synchronize()
        return [logits.float().numpy(force=True) for logits in outputs]


class Convolutions(convolutions.Convolutions):
    """The passes of convolutions, by the functions that autograd calls."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._device = find_device()
        prepare_device(task, self._device)
        self._dtype = torch.bfloat16 if task.dtype == "bfloat16" else torch.float32
        eager = task.side == "torch-eager"
        self._format = torch.contiguous_format if eager else torch.channels_last

    def _passes(
        self, layer: Convolution, images: np.ndarray, kernel: np.ndarray, gradient: np.ndarray
    ) -> dict[str, Pass]:
        x, g = (self._put(array.transpose(0, 3, 1, 2)) for array in (images, gradient))
        k = self._put(kernel.transpose(3, 2, 0, 1))
        stride, padding = (layer.stride,) * 2, (layer.padding,) * 2

        def forward() -> torch.Tensor:
            return functional.conv2d(x, k, None, stride, padding, groups=layer.groups)

        def gradients(of_input: bool, of_kernel: bool) -> Any:
            return torch.ops.aten.convolution_backward(
                *(g, x, k, None, stride, padding, (1, 1), False, (0, 0), layer.groups),
                (of_input, of_kernel, False),
            )

        passes: dict[str, Pass] = {
            FORWARD: forward,
            OF_INPUT: lambda: gradients(True, False)[0],
            OF_KERNEL: lambda: gradients(False, True)[1],
        }
        return {name: passes[name] for name in layer.passes}

    def _put(self, array: np.ndarray) -> torch.Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array)).to(self._device, self._dtype)
        return tensor.contiguous(memory_format=self._format)

    def _wait(self, result: Any) -> None:
        del result
        if self._device.type == "cuda":
            torch.cuda.synchronize()

    def _fetch(self, result: Any) -> np.ndarray:
        return result.float().numpy(force=True)


class Input:
    """torchvision's transforms in a ``DataLoader``, and the way to the device."""

    def __init__(self, task: Task) -> None:
        self.device = find_device()
        workers = int(task.side.rpartition("-")[2])
        pictures = data.raw_pictures(task, max(task.pictures, task.batch))
        self._make = lambda steps: make_loader(task, pictures, workers=workers, steps=steps)
        self._loader, self._steps = self._make(1), 1

    def advance(self, steps: int) -> list[None]:
        """Make so many batches."""
        if steps != self._steps:
            self._loader, self._steps = self._make(steps), steps
        for images, labels in self._loader:
            images.to(self.device), labels.to(self.device)
        if self.device.type == "cuda":
            torch.cuda.synchronize()
        return [None] * steps


class Epoch(Training):
    """Epochs fed by ``DataLoader``s of two workers, and evaluations, as tutorials have it."""

    def __init__(self, task: Task) -> None:
        super().__init__(task)
        self._loader = make_loader(
            task, data.raw_pictures(task, task.pictures), workers=TUTORIAL_WORKERS
        )
        self._test_loader = make_loader(
            task,
            data.raw_pictures(task, task.tests, seed=1),
            workers=TUTORIAL_WORKERS,
            train=False,
        )

    def advance(self, steps: int) -> list[float]:
        """Train for so many epochs; the test loss after each."""
        losses = []
        for _ in range(steps):
            self.module.train()
            self._train(self._loaded(self._loader))
            losses.append(self._evaluate())
        return losses

    def _loaded(self, loader: Iterable[Any]) -> Iterator[tuple[Any, Any]]:
        return (self._to_device(*batch) for batch in loader)

    def _evaluate(self) -> float:
        self.module.eval()
        loss, correct = 0.0, 0
        with torch.no_grad(), self._autocast():
            for images, labels in self._loaded(self._test_loader):
                logits = self._network(images)
                loss += functional.cross_entropy(logits, labels, reduction="sum").item()
                correct += int((logits.argmax(1) == labels).sum())
        return loss / self._task.tests


def _set_weights(module: nn.Module) -> None:
    state = module.state_dict()
    floats = {
        name: tuple(value.shape) for name, value in state.items() if value.is_floating_point()
    }
    drawn = {name: torch.from_numpy(value) for name, value in data.draw_weights(floats).items()}
    module.load_state_dict(state | drawn)


def _require_compiler(device: torch.device) -> None:
    compilers = [os.environ.get("CXX", "g++"), "clang++"]
    if device.type == "cpu" and not any(map(shutil.which, compilers)):
        raise SkipSideError("torch.compile needs a C++ compiler such as g++, and there is none")
