"""Running mutants: each by itself, or all of them in several processes."""

import concurrent.futures
import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
from jax.experimental.compilation_cache import compilation_cache

from parity.comparison import Comparison, first_divergence
from parity.execution import quick_compilation
from parity.mutants.catalogue import MUTANTS
from parity.mutants.changes import forget_compiled
from parity.mutants.mutant import REFUSAL, Mutant, MutantResult, found_in_words
from parity.mutants.subjects import SUBJECTS
from parity.workers import (
    CACHE_SETTINGS,
    Worker,
    Workers,
    compilation_folder,
    compile_into,
    default_jobs,
)

# How a network is refused, or a mutant makes a check fail.
FAILURES = (ArithmeticError, LookupError, RuntimeError, TypeError, ValueError)


class Verdict(NamedTuple):
    """What the suite says of a subject.

    Attributes:
        comparisons: all that were made.
        refusal: why the network, or what else is compared, could not be made; "" if it could.
    """

    comparisons: list[Comparison]
    refusal: str = ""

    @property
    def first(self) -> Comparison | None:
        """The comparison out of budget that lies nearest the cause."""
        return first_divergence(self.comparisons)

    @property
    def words(self) -> str:
        """The first divergence, or else the refusal; "" where everything is equal."""
        if self.first is not None:
            return found_in_words(self.first)
        return f"{REFUSAL}: {self.refusal}" if self.refusal else ""


def run_subject(subject: str, seed: int = 0) -> Verdict:
    """Compare a subject of ``parity.mutants.subjects`` as the code is now.

    Nothing that was compiled before is used, and nothing compiled is left behind.
    """
    forget_compiled()
    comparisons: list[Comparison] = []
    try:
        with quick_compilation():
            for comparison in SUBJECTS[subject](seed):
                comparisons.append(comparison)
    except FAILURES as error:
        return Verdict(comparisons, " ".join(str(error).split()) or repr(error))
    finally:
        forget_compiled()
    return Verdict(comparisons)


def run_mutant(name: str, seed: int = 0) -> MutantResult:
    """Make the mistake, compare, and undo it.

    Args:
        name: key of ``MUTANTS``.
        seed: of weights and inputs.

    Raises:
        KeyError: there is no such mutant.
        parity.mutants.changes.NoSuchCode: the code that it changes is no longer there.
    """
    return judge_mutant(MUTANTS[name], seed)


def judge_mutant(mutant: Mutant, seed: int = 0) -> MutantResult:
    """``run_mutant`` of one that need not be in the catalogue."""
    started = time.perf_counter()
    with mutant.change():
        verdict = run_subject(mutant.subject, seed)
    expected = mutant.expected
    if verdict.first is not None:
        located = expected.is_named_by(verdict.first)
    else:
        located = expected.check == REFUSAL and expected.layer in verdict.refusal
    seconds = time.perf_counter() - started
    return _result(mutant, verdict.words, bool(verdict.words), located, seconds)


def _result(
    mutant: Mutant, found: str, caught: bool, located: bool, seconds: float
) -> MutantResult:
    return MutantResult(
        name=mutant.name,
        description=mutant.description,
        expected=str(mutant.expected),
        caught=caught,
        located=located,
        found=found,
        seconds=seconds,
    )


def run_mutants(
    names: Sequence[str] | None = None, *, jobs: int | None = None, seed: int = 0
) -> Iterator[MutantResult]:
    """Run mutants and give what the suite says of each, as it comes.

    The subjects are first compared without any mutant. Where one is not equal by itself nothing
    that is found in it means anything, so its mutants are given as not caught, and say so.

    Args:
        names: keys of ``MUTANTS``; by default all.
        jobs: processes; by default as in ``parity.run.run``.
        seed: of weights and inputs.

    Raises:
        KeyError: there is no such mutant.
        parity.mutants.changes.NoSuchCode: the code that one changes is no longer there.
    """
    mutants = [MUTANTS[name] for name in (MUTANTS if names is None else names)]
    with _workers(min(jobs or default_jobs(), len(mutants))) as each:
        subjects = list(dict.fromkeys(mutant.subject for mutant in mutants))
        wrong = {
            subject: verdict.words
            for subject, verdict in each(run_subject, subjects, seed)
            if verdict.words
        }
        runnable = [mutant.name for mutant in mutants if mutant.subject not in wrong]
        for mutant in mutants:
            if mutant.subject in wrong:
                found = f"meaningless: unequal without the mutant: {wrong[mutant.subject]}"
                yield _result(mutant, found, False, False, 0.0)
        for _, result in each(run_mutant, runnable, seed):
            yield result


@contextlib.contextmanager
def _workers(jobs: int) -> Iterator[Callable[..., Iterator[tuple[str, Any]]]]:
    """Gives a function that calls another for each of several names, in so many processes."""
    if jobs <= 1:
        with compilation_folder() as folder, compiled_in(folder):
            yield lambda function, names, seed: ((name, function(name, seed)) for name in names)
        return
    with Workers() as workers:
        idle = [workers.make(number) for number in range(jobs)]

        def each(function: Any, names: Sequence[str], seed: int) -> Iterator[tuple[str, Any]]:
            waiting = list(names)
            running: dict[concurrent.futures.Future[Any], tuple[str, Worker]] = {}
            while waiting or running:
                while waiting and idle:
                    name, worker = waiting.pop(0), idle.pop()
                    running[worker.submit(function, name, seed)] = name, worker
                done, _ = concurrent.futures.wait(
                    running, return_when=concurrent.futures.FIRST_COMPLETED
                )
                for future in done:
                    name, worker = running.pop(future)
                    idle.append(worker)
                    yield name, future.result()

        yield each


@contextlib.contextmanager
def compiled_in(folder: str) -> Iterator[None]:
    """Keep what is compiled in a folder: whatever a mutant leaves as it was is compiled once."""
    before = {setting: jax.config.values[setting] for setting in CACHE_SETTINGS}
    compile_into(folder)
    compilation_cache.reset_cache()
    try:
        yield
    finally:
        for setting, value in before.items():
            jax.config.update(setting, value)
        compilation_cache.reset_cache()
