"""Running many comparisons: one after the other, or several processes at a time."""

import concurrent.futures
import contextlib
import multiprocessing
import os
import tempfile
import time
from collections.abc import Iterator, Sequence

import jax
import torch

import flaxnets
from parity.budget import DTYPES, DType
from parity.cases import Case
from parity.checks import check_pair
from parity.comparison import MODES, Mode
from parity.pairs import make_pair
from parity.report import NetworkReport

Result = NetworkReport | str

# Parameters of a network of which no two are compared at a time.
LARGE = 80_000_000


def run_cases(
    cases: Sequence[Case],
    *,
    seed: int = 0,
    dtypes: Sequence[DType] = DTYPES,
    modes: Sequence[Mode] = MODES,
    jobs: int | None = None,
) -> Iterator[tuple[Case, Result]]:
    """Compare cases and give each one's report, or why it could not be compared, as they come.

    Args:
        cases: what to compare.
        seed: of weights and inputs.
        dtypes: what to compare in.
        modes: "eval", "train".
        jobs: processes; by default 2 on a CPU with as many cores, else 1. With more than one,
            cases come in another order, and networks of more than ``LARGE`` parameters, which
            take some 10 GB, one by one before the others.
    """
    jobs = min(jobs or default_jobs(), len(cases))
    if jobs <= 1:
        for case in cases:
            yield case, run_case(case, seed, dtypes, modes)
        return
    large = [case for case in cases if _parameters(case) > LARGE]
    yield from _run_in_processes(large, seed, dtypes, modes, 1)
    rest = [case for case in cases if _parameters(case) <= LARGE]
    yield from _run_in_processes(rest, seed, dtypes, modes, jobs)


def _run_in_processes(
    cases: Sequence[Case], seed: int, dtypes: Sequence[DType], modes: Sequence[Mode], jobs: int
) -> Iterator[tuple[Case, Result]]:
    """Run so many at a time, the largest first."""
    if not cases:
        return
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-"))
        pool = concurrent.futures.ProcessPoolExecutor(
            jobs, multiprocessing.get_context("spawn"), _start_worker, (folder, jobs)
        )
        stack.callback(pool.shutdown, cancel_futures=True)
        futures = {
            pool.submit(run_case, case, seed, dtypes, modes): case
            for case in sorted(cases, key=_parameters, reverse=True)
        }
        for future in concurrent.futures.as_completed(futures):
            yield futures[future], future.result()


def run_case(case: Case, seed: int, dtypes: Sequence[DType], modes: Sequence[Mode]) -> Result:
    """One case's report, or in a line why it could not be compared."""
    started = time.perf_counter()
    try:
        groups = list(check_pair(make_pair(case, seed=seed), dtypes=dtypes, modes=modes))
    except (ValueError, RuntimeError, MemoryError) as error:
        return str(error).strip().partition("\n")[0] or repr(error)
    comparisons = tuple(comparison for group in groups for comparison in group)
    return NetworkReport(case.name, comparisons, time.perf_counter() - started)


def default_jobs() -> int:
    """2 where networks are compared on a CPU with as many cores, else 1."""
    return min(2, os.cpu_count() or 1) if jax.default_backend() == "cpu" else 1


def _start_worker(folder: str, jobs: int) -> None:
    """Share the cores, and what has been compiled, with the other workers."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // jobs))
    jax.config.update("jax_compilation_cache_dir", folder)
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _parameters(case: Case) -> int:
    return 0 if case.overrides else flaxnets.published_parameters(case.arch)
