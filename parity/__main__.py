"""Compare the Flax networks with their PyTorch twins: ``python -m parity --arch resnet20``.

Exit status: 0 all equal, 1 something is not equal, 2 the comparison could not be run.
"""

import argparse
import datetime
import importlib.metadata
import platform
import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

from parity.options import CouldNotRunError, chosen, make_parser, refuse_beside_mutants

if TYPE_CHECKING:
    from parity.report import NetworkReport

PACKAGES = ("flaxnets", "jax", "jaxlib", "flax", "numpy", "torch", "torchvision")
EQUAL, NOT_EQUAL, COULD_NOT_RUN, STOPPED = 0, 1, 2, 130


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = make_parser().parse_args(arguments)
    try:
        _require_packages()
        _require_folders(options)
        if options.list:
            return _list_names()
        if options.mutants is not None:
            return _run_mutants(options)
        return _compare(options)
    except CouldNotRunError as error:
        print(f"parity: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    except KeyboardInterrupt:
        print("parity: stopped", file=sys.stderr)
        return STOPPED


def _require_packages() -> None:
    try:
        import jinja2  # noqa: F401
        import optax  # noqa: F401
        import rich  # noqa: F401
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise CouldNotRunError(
            f"{error.name} is not installed, and the comparison needs it: "
            'pip install "flaxnets[parity]" (in a clone: pip install -e ".[parity]")'
        ) from error


def _require_folders(options: argparse.Namespace) -> None:
    for name in ("json", "html"):
        path = getattr(options, name)
        if path is not None and not path.absolute().parent.is_dir():
            raise CouldNotRunError(f"--{name}: there is no folder {path.parent}")


def _list_names() -> int:
    from parity.cases import named_cases, option_cases, upstream_cases
    from parity.comparison import NETWORK_CHECKS
    from parity.run import ALONE

    print("networks:", *named_cases(), sep="\n  ")
    print("options that no network's name reaches:", *option_cases(), sep="\n  ")
    print("small networks of other code bases, under their names:", *upstream_cases(), sep="\n  ")
    print("checks of a network:", *NETWORK_CHECKS, sep="\n  ")
    print("checks that need no network:", *ALONE, sep="\n  ")
    return EQUAL


def _compare(options: argparse.Namespace) -> int:
    from parity import report
    from parity.run import run

    tasks, settings = chosen(options)
    console = report.make_console()
    single = len(tasks) == 1
    if not single:
        console.print(report.summary_header(), soft_wrap=True)
    started = time.perf_counter()
    reports: list[NetworkReport] = []
    failures: dict[str, str] = {}
    with console.status(f"comparing: {len(tasks)} to go") as status:
        for task, result in run(tasks, settings, options.jobs):
            name = task if isinstance(task, str) else task.name
            if isinstance(result, str):
                failures[name] = result
                print(f"parity: {name} could not be compared: {result}", file=sys.stderr)
            else:
                reports.append(result)
                _print_report(console, result, single=single)
            seconds = time.perf_counter() - started
            done = len(reports) + len(failures)
            status.update(f"{done} of {len(tasks)} compared in {seconds:.0f} s")
    seconds = time.perf_counter() - started
    if not single:
        equal = sum(result.ok for result in reports)
        unable = f", {len(failures)} could not be compared" if failures else ""
        console.print(f"{equal} of {len(tasks)} equal{unable}, {seconds:.0f} s")
    head = _head(options.seed, seconds)
    head["not_compared"] = [{"name": name, "reason": text} for name, text in failures.items()]
    _write(options, report.to_json(head, reports))
    if failures:
        return COULD_NOT_RUN
    return EQUAL if report.all_ok(reports) else NOT_EQUAL


def _print_report(console: Any, result: "NetworkReport", *, single: bool) -> None:
    from parity import report

    if single and not result.standalone:
        report.print_network(console, result)
        return
    if single:
        report.print_checks(console, result)
    else:
        console.print(report.summary_line(result), soft_wrap=True)
    if single or not result.ok:
        console.print(report.verdict(result), soft_wrap=True)


def _run_mutants(options: argparse.Namespace) -> int:
    from flaxnets import rules
    from parity import report
    from parity.mutants import MUTANTS, print_results, run_mutants

    refuse_beside_mutants(options)
    names = options.mutants or list(MUTANTS)
    for name in names:
        if name not in MUTANTS:
            near = rules.nearest(name, list(MUTANTS))
            hint = f"did you mean {near}?" if near else f"there are {', '.join(MUTANTS)}"
            raise CouldNotRunError(f"there is no mutant named {name!r}; {hint}")
    console = report.make_console()
    started = time.perf_counter()
    results = []
    with console.status(f"{len(names)} mutants to go") as status:
        for result in run_mutants(names, jobs=options.jobs, seed=options.seed):
            results.append(result)
            status.update(f"{len(results)} of {len(names)} mutants: {result.name}")
    print_results(console, results)
    head = _head(options.seed, time.perf_counter() - started)
    head["mutants"] = [result.record() for result in results]
    _write(options, report.to_json(head, []))
    return EQUAL if all(result.caught and result.located for result in results) else NOT_EQUAL


def _write(options: argparse.Namespace, document: dict[str, Any]) -> None:
    from parity import report
    from parity.html import write_html

    for name, write in (("json", report.write_json), ("html", _swapped(write_html))):
        path = getattr(options, name)
        if path is None:
            continue
        try:
            write(path, document)
        except OSError as error:
            raise CouldNotRunError(f"--{name}: {error.strerror}: {path}") from error


def _swapped(function: Any) -> Any:
    return lambda path, document: function(document, path)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _head(seed: int, seconds: float) -> dict[str, Any]:
    """What was run, on what, with which budgets."""
    import jax

    from parity import budget

    return {
        "command": shlex.join(["python", "-m", "parity", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "seed": seed,
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "budgets": {
            "float64 forward": budget.FLOAT64_FORWARD,
            "float64 backward": budget.FLOAT64_BACKWARD,
            "float32 and bfloat16, times PyTorch's own error": budget.FLOAT32_FACTOR,
            "float32 beside": budget.FLOAT32_FLOOR,
            "bfloat16 beside": budget.BFLOAT16_FLOOR,
            "gradients count as at least, of the largest in their layer": budget.SMALLEST_SHARE,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
