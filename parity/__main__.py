"""Compare the Flax networks with their PyTorch twins: ``python -m parity --arch resnet20``.

Exit status: 0 all equal, 1 something is not equal, 2 the comparison could not be run.
"""

import argparse
import dataclasses
import datetime
import fnmatch
import importlib.metadata
import platform
import shlex
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.cases import Case
    from parity.report import NetworkReport

PACKAGES = ("flaxnets", "jax", "jaxlib", "flax", "numpy", "torch", "torchvision")
EQUAL, NOT_EQUAL, COULD_NOT_RUN = 0, 1, 2


class CouldNotRunError(Exception):
    """Nothing was compared, for a reason that the message tells."""


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        return _run(options)
    except CouldNotRunError as error:
        print(f"parity: {error}", file=sys.stderr)
        return COULD_NOT_RUN
    except KeyboardInterrupt:
        print("parity: stopped", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m parity",
        description="Compare Flax networks with their PyTorch twins, layer by layer.",
    )
    what = parser.add_mutually_exclusive_group(required=True)
    what.add_argument(
        "--arch", nargs="+", metavar="NAME", help="networks, or patterns such as 'wrn_*'"
    )
    what.add_argument("--all", action="store_true", help="every network and every option")
    what.add_argument("--list", action="store_true", help="the names that --arch takes")
    parser.add_argument("--dtype", choices=("float64", "float32", "both"), default="both")
    parser.add_argument("--mode", choices=("eval", "train", "both"), default="both")
    parser.add_argument("--seed", type=_at_least(0), default=0, help="of weights and inputs")
    parser.add_argument("--batch", type=_at_least(1), metavar="N", help="pictures in a batch")
    parser.add_argument(
        "--input", type=_size, metavar="HxW", help="height and width of the pictures"
    )
    parser.add_argument(
        "--jobs",
        type=_at_least(1),
        metavar="N",
        help="networks compared at a time (default: 2 on a CPU with as many cores, else 1)",
    )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every comparison to FILE")
    return parser


def _at_least(lowest: int) -> Any:
    def convert(text: str) -> int:
        if not text.isdecimal() or int(text) < lowest:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {lowest} on")
        return int(text)

    return convert


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a height and width such as 32x32")
    return int(height), int(width)


def _run(options: argparse.Namespace) -> int:
    _require_packages()
    from parity import report
    from parity.budget import DTYPES
    from parity.cases import named_cases, option_cases
    from parity.comparison import MODES
    from parity.run import run_cases

    if options.list:
        print("networks:", *named_cases(), sep="\n  ")
        print("options that no network's name reaches:", *option_cases(), sep="\n  ")
        return EQUAL
    if options.json is not None and not options.json.parent.is_dir():
        raise CouldNotRunError(f"--json: there is no folder {options.json.parent}")
    cases = _chosen_cases(options)
    console = report.make_console()
    single = len(cases) == 1
    if not single:
        console.print(report.summary_header(), soft_wrap=True)
    started = time.perf_counter()
    reports: list[NetworkReport] = []
    failed = 0
    results = run_cases(
        cases,
        seed=options.seed,
        dtypes=[dtype for dtype in DTYPES if options.dtype in (dtype, "both")],
        modes=[mode for mode in MODES if options.mode in (mode, "both")],
        jobs=options.jobs,
    )
    with console.status(f"comparing {', '.join(case.name for case in cases[:3])}") as status:
        for case, result in results:
            status.update(f"{len(reports) + failed + 1} of {len(cases)} networks done")
            if isinstance(result, str):
                failed += 1
                print(f"parity: {case.name} could not be compared: {result}", file=sys.stderr)
                continue
            reports.append(result)
            if single:
                report.print_network(console, result)
            else:
                console.print(report.summary_line(result), soft_wrap=True)
                if not result.ok:
                    console.print(report.verdict(result), soft_wrap=True)
    seconds = time.perf_counter() - started
    if not single:
        equal = sum(result.ok for result in reports)
        unable = f", {failed} could not be compared" if failed else ""
        console.print(f"{equal} of {len(cases)} equal{unable}, {seconds:.0f} s")
    if options.json is not None:
        try:
            report.write_json(options.json, report.to_json(_head(options, seconds), reports))
        except OSError as error:
            raise CouldNotRunError(f"--json: {error.strerror}: {options.json}") from error
    if failed:
        return COULD_NOT_RUN
    return EQUAL if report.all_ok(reports) else NOT_EQUAL


def _require_packages() -> None:
    try:
        import rich  # noqa: F401
        import torch  # noqa: F401
        import torchvision  # noqa: F401
    except ImportError as error:
        raise CouldNotRunError(
            f"{error.name} is not installed, and the comparison needs it: "
            'pip install "flaxnets[parity]" (in a clone: pip install -e ".[parity]")'
        ) from error


def _chosen_cases(options: argparse.Namespace) -> "list[Case]":
    from parity.cases import find_case, named_cases, option_cases

    known = named_cases() | option_cases()
    if options.all:
        chosen = known
    else:
        chosen = {}
        for name in options.arch:
            matches = fnmatch.filter(known, name)
            try:
                found = [known[match] for match in matches] or [find_case(name)]
            except ValueError as error:
                raise CouldNotRunError(str(error)) from None
            chosen |= {case.name: case for case in found}
    changes: dict[str, Any] = {}
    if options.batch is not None:
        changes["batch"] = options.batch
    if options.input is not None:
        changes["height"], changes["width"] = options.input
    return [dataclasses.replace(case, **changes) for case in chosen.values()]


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def _head(options: argparse.Namespace, seconds: float) -> dict[str, Any]:
    """What was run, on what, with which budgets."""
    import jax

    from parity import budget

    return {
        "command": shlex.join(["python", "-m", "parity", *sys.argv[1:]]),
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 1),
        "seed": options.seed,
        "versions": {"python": platform.python_version()}
        | {package: _version(package) for package in PACKAGES},
        "device": jax.devices()[0].device_kind,
        "budgets": {
            "float64 forward": budget.FLOAT64_FORWARD,
            "float64 backward": budget.FLOAT64_BACKWARD,
            "float32 factor": budget.FLOAT32_FACTOR,
            "float32 floor": budget.FLOAT32_FLOOR,
        },
    }


if __name__ == "__main__":
    sys.exit(main())
