"""What the machine can do: the fastest matrix product and copy of NumPy, JAX and PyTorch."""

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.task import SkipSideError, Task

# On a CPU a product of so many rows and columns takes about a tenth of a second.
MATRIX, GPU_MATRIX = 2048, 8192
COPIED_BYTES, GPU_COPIED_BYTES = 2**27, 2**30


class Roofline:
    """One library's matrix product or copy.

    Attributes:
        flops: floating-point operations of a call.
        bytes: read and written by a call.
    """

    def __init__(self, task: Task) -> None:
        if task.side == "numpy" and task.dtype == "bfloat16":
            raise SkipSideError("NumPy has no bfloat16")
        self.flops, self.bytes = 0, 0
        kinds: dict[str, Any] = {"numpy": _NumPy, "jax": _Jax, "torch": _Torch}
        library = kinds[task.side](task)
        self._call: Callable[[], Any]
        if task.variant == "matmul":
            size = GPU_MATRIX if library.gpu else MATRIX
            matrix = np.random.default_rng(0).standard_normal((size, size), np.float32)
            self._call = library.matmul(matrix)
            self.flops = 2 * size**3
        else:
            count = GPU_COPIED_BYTES if library.gpu else COPIED_BYTES
            self._call = library.copy(np.ones(count // 4, np.float32))
            self.bytes = 2 * count
        self._wait = library.wait

    def advance(self, steps: int) -> list[None]:
        """Make so many calls."""
        for _ in range(steps):
            result = self._call()
        self._wait(result)
        return [None] * steps


class _NumPy:
    gpu = False

    def __init__(self, task: Task) -> None:
        del task

    def matmul(self, matrix: np.ndarray) -> Callable[[], Any]:
        out = np.empty_like(matrix)
        return lambda: np.matmul(matrix, matrix, out=out)

    def copy(self, array: np.ndarray) -> Callable[[], Any]:
        out = np.empty_like(array)
        return lambda: np.copyto(out, array)

    def wait(self, result: Any) -> None:
        """It has waited."""


class _Jax:
    def __init__(self, task: Task) -> None:
        self._jax = importlib.import_module("jax")
        common = importlib.import_module("benchmarks.jax_common")
        common.prepare_device(task)
        self._dtype = common.compute_dtype(task)
        self.gpu = self._jax.default_backend() == "gpu"

    def matmul(self, matrix: np.ndarray) -> Callable[[], Any]:
        jitted = self._jax.jit(lambda x: x @ x)
        operand = self._jax.numpy.asarray(matrix, self._dtype)
        return lambda: jitted(operand)

    def copy(self, array: np.ndarray) -> Callable[[], Any]:
        # Into the memory of the copy before: else most of a CPU's time goes into new pages.
        jnp = self._jax.numpy
        jitted = self._jax.jit(lambda out, x: jnp.copy(x), donate_argnums=0, keep_unused=True)
        source = jnp.asarray(array)
        held = [jnp.zeros_like(source)]

        def call() -> Any:
            held[0] = jitted(held[0], source)
            return held[0]

        return call

    def wait(self, result: Any) -> None:
        self._jax.block_until_ready(result)


class _Torch:
    def __init__(self, task: Task) -> None:
        self._torch = importlib.import_module("torch")
        side = importlib.import_module("benchmarks.torch_side")
        self._device = side.find_device()
        side.prepare_device(task, self._device)
        self._dtype = self._torch.bfloat16 if task.dtype == "bfloat16" else self._torch.float32
        self.gpu = self._device.type == "cuda"

    def matmul(self, matrix: np.ndarray) -> Callable[[], Any]:
        operand = self._torch.from_numpy(matrix).to(self._device, self._dtype)
        out = self._torch.empty_like(operand)
        return lambda: self._torch.mm(operand, operand, out=out)

    def copy(self, array: np.ndarray) -> Callable[[], Any]:
        source = self._torch.from_numpy(array).to(self._device)
        out = self._torch.empty_like(source)
        return lambda: out.copy_(source)

    def wait(self, result: Any) -> None:
        del result
        if self.gpu:
            self._torch.cuda.synchronize()
