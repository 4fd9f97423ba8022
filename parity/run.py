"""Running many comparisons: one after the other, or several processes at a time."""

import concurrent.futures
import concurrent.futures.process
import dataclasses
import os
import time
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any

import jax

import flaxnets
from parity import drift
from parity.budget import DTYPES, DType
from parity.cases import Case
from parity.checks import check_pair
from parity.comparison import MODES, NETWORK_CHECKS, Comparison, Mode
from parity.pairs import make_pair
from parity.report import NetworkReport
from parity.standalone import STANDALONE
from parity.workers import Worker, Workers, default_jobs

# A network, or the name of a check that stands for itself.
Task = Case | str
Result = NetworkReport | str

NOTHING = "the checks asked for compare nothing of it in this dtype and mode"

# The names of all checks that need no network.
ALONE = (*STANDALONE, drift.CHECK)
# What a comparison takes: so much, and for every parameter (in both frameworks: float64 and float32
# values, gradients, momentum, and the same as recorded).
PROCESS_BYTES, PARAMETER_BYTES = 3e9, 100
RENEWING_BYTES = 2 * PROCESS_BYTES  # after a larger comparison a process is replaced
MEMORY_SHARE = 0.8  # of the machine's memory that comparisons may take together


@dataclasses.dataclass(frozen=True)
class Settings:
    """How things are compared.

    Attributes:
        seed: of weights and inputs.
        dtypes: what networks are compared in.
        modes: "eval", "train".
        checks: which of ``NETWORK_CHECKS``.
        quick: less of every check that stands for itself.
    """

    seed: int = 0
    dtypes: Sequence[DType] = DTYPES
    modes: Sequence[Mode] = MODES
    checks: Collection[str] = tuple(NETWORK_CHECKS)
    quick: bool = False


def run(
    tasks: Sequence[Task], settings: Settings, jobs: int | None = None
) -> Iterator[tuple[Task, Result]]:
    """Do tasks and give each one's report, or why it could not be done, as they come.

    Args:
        tasks: what to compare.
        settings: how.
        jobs: processes; by default one for each core on a CPU, else 1. With more than one, tasks
            come in another order, and each process keeps to one core.
    """
    jobs = min(jobs or default_jobs(), len(tasks))
    if jobs <= 1:
        for task in tasks:
            yield task, run_task(task, settings)
        return
    with Workers() as workers:
        in_order = sorted(tasks, key=_cost, reverse=True)
        yield from _share_out(in_order, settings, workers.make, jobs)


def run_task(task: Task, settings: Settings) -> Result:
    """One task's report, or why it could not be done."""
    started = time.perf_counter()
    standalone, name = isinstance(task, str), task if isinstance(task, str) else task.name
    records: Sequence[dict[str, Any]] = ()
    try:
        if isinstance(task, Case):
            comparisons = _compare_network(task, settings)
        elif task == drift.CHECK:
            comparisons, records = drift.check_drift(settings.seed, settings.quick)
        else:
            comparisons = list(STANDALONE[task](settings.seed, settings.quick))
    except (ValueError, RuntimeError, MemoryError, OSError) as error:
        return str(error).strip() or repr(error)
    except Exception as error:  # a defect; the other tasks' results are not lost for it
        return f"{type(error).__name__}: {error}"
    if not comparisons:
        return NOTHING
    seconds = time.perf_counter() - started
    return NetworkReport(name, tuple(comparisons), seconds, standalone, tuple(records))


def _compare_network(case: Case, settings: Settings) -> list[Comparison]:
    groups = check_pair(
        make_pair(case, seed=settings.seed),
        dtypes=settings.dtypes,
        modes=settings.modes,
        checks=settings.checks,
    )
    return [comparison for group in groups for comparison in group]


def _share_out(
    tasks: list[Task], settings: Settings, make_worker: Callable[[int], Worker], jobs: int
) -> Iterator[tuple[Task, Result]]:
    """Give every free worker the first task that the memory has room for.

    If there is one, of other layers than those that are being compared: what two tasks share is
    compiled once if they come one after the other, and twice if they run at the same time.

    A worker that has done a large task is replaced, since not all memory comes back; so is one that
    died, and its task is tried once more when it has the machine for itself.
    """
    waiting, again = list(tasks), list[Task]()
    workers = {number: make_worker(number) for number in range(jobs)}
    idle = set(workers)
    running: dict[concurrent.futures.Future[Result], tuple[Task, int]] = {}
    while waiting or running or again:
        if not waiting and not running:
            waiting, jobs, idle = again[:1], 1, {0}
            del again[:1]
        for number in sorted(idle):
            room = _memory() - sum(_bytes(task) for task, _ in running.values())
            fitting = [each for each in waiting if not running or _bytes(each) <= room]
            if not fitting:
                break
            kin = {_layers(task) for task, _ in running.values()}
            task = next((each for each in fitting if _layers(each) not in kin), fitting[0])
            waiting.remove(task)
            idle.remove(number)
            running[workers[number].submit(_run_and_forget, task, settings)] = task, number
        done, _ = concurrent.futures.wait(running, return_when=concurrent.futures.FIRST_COMPLETED)
        for future in done:
            task, number = running.pop(future)
            idle.add(number)
            broken = isinstance(future.exception(), concurrent.futures.process.BrokenProcessPool)
            if broken or _bytes(task) > RENEWING_BYTES:
                workers[number].shutdown(wait=False)
                workers[number] = make_worker(number)
            if not broken:
                yield task, future.result()
            elif jobs > 1:
                again.append(task)
            else:
                yield task, "its process was ended from outside; the machine may lack the memory"


def _run_and_forget(task: Task, settings: Settings) -> Result:
    """In a worker; what was compiled is kept in the shared folder only, or it fills the memory."""
    result = run_task(task, settings)
    jax.clear_caches()
    return result


def _memory() -> float:
    """Bytes that comparisons may take together."""
    try:
        return MEMORY_SHARE * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):  # not known on this system
        return PROCESS_BYTES


def _bytes(task: Task) -> float:
    return PROCESS_BYTES + PARAMETER_BYTES * _parameters(task)


def _layers(task: Task) -> tuple[Any, ...]:
    """The same for networks whose layers are mostly of the same shapes; else something else."""
    if isinstance(task, str) or not task.arch:
        return (task if isinstance(task, str) else task.name,)
    config = flaxnets.get_config(task.arch, **task.overrides)
    fields = ("block_sizes", "growth_rate", "block", "widths", "widen_factor")
    return tuple(getattr(config, field, None) for field in fields)


def _cost(task: Task) -> float:
    """What sorts the tasks: long ones first, so that none is left for the end."""
    return 30e6 if isinstance(task, str) else _parameters(task)


def _parameters(task: Task) -> int:
    if isinstance(task, str) or not task.arch or task.overrides:
        return 0
    return flaxnets.published_parameters(task.arch)
