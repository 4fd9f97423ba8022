"""Which task runs when, and what becomes of a process that dies."""

import concurrent.futures
import concurrent.futures.process
import threading
import time
from collections.abc import Callable

import pytest

from parity import run
from parity.cases import Case
from parity.report import NetworkReport
from parity.run import Settings, Task

executors: list[concurrent.futures.Executor] = []


def case(name: str) -> Case:
    return Case(name, "", {}, 8, 8)


@pytest.fixture
def sizes(monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """Bytes of every task by name, on a machine that has 10."""
    table: dict[str, float] = {}
    monkeypatch.setattr(run, "_bytes", lambda task: table[task.name])
    monkeypatch.setattr(run, "_memory", lambda: 10)
    return table


def shared_out(
    monkeypatch: pytest.MonkeyPatch, names: list[str], work: Callable[[str], None], jobs: int
) -> list[tuple[str, run.Result]]:
    """The results in the order in which they come, with threads in place of processes."""

    def do(task: Task, _: Settings) -> run.Result:
        assert isinstance(task, Case)
        work(task.name)
        return NetworkReport(task.name, (), 0.0)

    monkeypatch.setattr(run, "_run_and_forget", do)
    executors.clear()

    def make_worker(_: int) -> concurrent.futures.Executor:
        executors.append(concurrent.futures.ThreadPoolExecutor(1))
        return executors[-1]

    tasks: list[Task] = [case(name) for name in names]
    found = run._share_out(tasks, Settings(), make_worker, jobs)
    return [(task.name, result) for task, result in found if isinstance(task, Case)]


def test_tasks_run_together_only_where_the_memory_has_room(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, float]
) -> None:
    sizes |= {"large": 8, "larger": 9, "small": 1, "smaller": 1, "endless": 40}
    lock, running, together = threading.Lock(), set[str](), set[frozenset[str]]()

    def work(name: str) -> None:
        with lock:
            running.add(name)
            together.add(frozenset(running))
        time.sleep(0.05)
        with lock:
            running.remove(name)

    found = shared_out(monkeypatch, ["endless", "large", "larger", "small", "smaller"], work, 2)
    assert {name for name, _ in found} == set(sizes)
    assert max(sum(sizes[name] for name in names) for names in together if len(names) > 1) <= 10
    assert frozenset({"large", "small"}) in together
    assert frozenset({"endless"}) in together


def test_networks_of_the_same_layers_do_not_run_together(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, float]
) -> None:
    kin = {"a1": "a", "a2": "a", "b1": "b", "b2": "b"}
    monkeypatch.setattr(run, "_layers", lambda task: (kin[task.name],))
    sizes |= dict.fromkeys(kin, 1)
    running, together = set[str](), set[frozenset[str]]()

    def work(name: str) -> None:
        running.add(name)
        time.sleep(0.02)
        together.add(frozenset(running))
        time.sleep(0.02)
        running.remove(name)

    shared_out(monkeypatch, list(kin), work, 2)
    assert not together & {frozenset({"a1", "a2"}), frozenset({"b1", "b2"})}
    assert any(len(names) == 2 for names in together)


def test_what_is_compiled_for_one_serves_the_other() -> None:
    def layers(arch: str) -> tuple:
        return run._layers(Case(arch, arch, {}, 8, 8))

    assert layers("densenet161") == layers("weiaicunzai_densenet161_cifar")
    assert layers("resnet18") == layers("pytorch_book_resnet34") == layers("preact_resnet34_cifar")
    assert (
        len({layers(arch) for arch in ("densenet121", "densenet161", "resnet50", "wrn_16_4")}) == 4
    )
    assert run._layers("shapes") == ("shapes",)


def test_what_a_process_died_of_is_tried_again_alone(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, float]
) -> None:
    sizes |= {"a": 1, "fits alone": 1, "never": 1, "b": 1}
    running, tries, together = set[str](), list[str](), dict[str, set[str]]()

    def work(name: str) -> None:
        running.add(name)
        tries.append(name)
        time.sleep(0.02)
        together[name] = set(running)
        time.sleep(0.02)
        running.remove(name)
        if name == "never" or (name == "fits alone" and tries.count(name) == 1):
            raise concurrent.futures.process.BrokenProcessPool

    results = dict(shared_out(monkeypatch, list(sizes), work, 2))
    assert tries.count("never") == tries.count("fits alone") == 2
    assert tries[-2:] == ["fits alone", "never"]
    assert together["fits alone"] == {"fits alone"}
    assert isinstance(results["never"], str)
    assert "may lack the memory" in results["never"]
    assert all(isinstance(results[name], NetworkReport) for name in ("a", "b", "fits alone"))


def test_a_worker_that_did_a_large_task_is_replaced(
    monkeypatch: pytest.MonkeyPatch, sizes: dict[str, float]
) -> None:
    sizes |= {"a": 1, "large": 8, "b": 1}
    monkeypatch.setattr(run, "RENEWING_BYTES", 5)
    threads: dict[str, int] = {}

    def work(name: str) -> None:
        threads[name] = threading.get_ident()
        made.append(name)
        time.sleep(0.02)

    made: list[str] = []
    shared_out(monkeypatch, ["a", "large", "b"], work, 1)
    assert made == ["a", "large", "b"]
    assert threads["a"] == threads["large"]
    workers = {id(each) for each in executors}
    assert len(workers) == 2


def test_a_network_takes_memory_by_its_parameters() -> None:
    assert run._bytes("shapes") == run.PROCESS_BYTES
    one = Case("net", "resnet20", {}, 8, 8)
    assert run._bytes(one) == run.PROCESS_BYTES + 269_722 * run.PARAMETER_BYTES


def test_a_defect_of_a_check_is_told_and_not_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(seed: int, quick: bool) -> list:
        raise KeyError("no such layer")

    monkeypatch.setitem(run.STANDALONE, "functions", fail)
    assert run.run_task("functions", Settings()) == "KeyError: 'no such layer'"


def test_a_check_that_compares_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(run.STANDALONE, "functions", lambda seed, quick: [])
    assert run.run_task("functions", Settings()) == run.NOTHING
