"""Processes that compare, each on a core of its own.

Threads of several processes that wait for each other take several times as long as one thread each.
"""

import concurrent.futures
import contextlib
import functools
import multiprocessing
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import torch

Worker = concurrent.futures.ProcessPoolExecutor

# Libraries read these when they are loaded, and would else start a thread for every core.
THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# XLA's CPU compiler then takes two thirds of the time, most of what a DenseNet's comparison takes;
# loops add in the same order.
QUICK_XLA = "--xla_cpu_use_fusion_emitters=false"
_KEEP_ALL = {
    "jax_persistent_cache_min_compile_time_secs": 0,
    "jax_persistent_cache_min_entry_size_bytes": -1,
}
CACHE_SETTINGS = ("jax_compilation_cache_dir", *_KEEP_ALL)


class Workers:
    """Makes workers, which share what they compile, until the context ends.

    A worker is an executor of one process.
    """

    def __enter__(self) -> "Workers":
        with contextlib.ExitStack() as stack:
            self._folder = stack.enter_context(compilation_folder())
            stack.enter_context(_one_thread_each())
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def make(self, number: int) -> Worker:
        """Start a worker on the core of that number, or of the remainder if there are fewer."""
        cores = available_cores()
        core = cores[number % len(cores)]
        spawn = multiprocessing.get_context("spawn")
        worker = Worker(1, spawn, _prepare, (self._folder, core))
        self._stack.callback(worker.shutdown, cancel_futures=True)
        return worker


def default_jobs() -> int:
    """A worker for each core where networks are compared on a CPU, else 1."""
    return len(available_cores()) if jax.default_backend() == "cpu" else 1


def available_cores() -> list[int]:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return sorted(os.sched_getaffinity(0))
    return list(range(os.cpu_count() or 1))


@contextlib.contextmanager
def compilation_folder() -> Iterator[str]:
    """An empty folder for what is compiled, for the time of the context."""
    with tempfile.TemporaryDirectory(prefix="parity-", ignore_cleanup_errors=True) as folder:
        yield folder


def compile_into(folder: str) -> None:
    """Keep all that is compiled in a folder, and take it from there."""
    settings: dict[str, Any] = {"jax_compilation_cache_dir": folder, **_KEEP_ALL}
    for setting, value in settings.items():
        jax.config.update(setting, value)


def _prepare(folder: str, core: int) -> None:
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {core})
    torch.set_num_threads(1)
    compile_into(folder)


def _end_with_parent() -> None:
    """However the parent ends: a worker would else finish its task first, in minutes."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


@functools.cache
def xla_takes(flags: str) -> bool:
    """Whether this version of XLA knows these flags; it ends a process that has others."""
    command = [sys.executable, "-c", "import jax; jax.numpy.zeros(1) + 1"]
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.run(command, env=environment, capture_output=True).returncode == 0


@contextlib.contextmanager
def _one_thread_each() -> Iterator[None]:
    """Processes that start in this context have libraries of one thread, and compile quickly."""
    settings = dict.fromkeys(THREADS, "1")
    flags = f"{os.environ.get('XLA_FLAGS', '')} {QUICK_XLA}".strip()
    if xla_takes(flags):
        settings["XLA_FLAGS"] = flags
    before: Mapping[str, str | None] = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
