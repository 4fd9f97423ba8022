"""Measure the networks beside PyTorch and plain Flax: ``python -m benchmarks train-step``.

Exit status: 0 measured, 1 ``guard`` found a regression, 2 it could not be measured.
"""

import argparse
import contextlib
import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.task import DTYPES, WORKS

MEASURED, REGRESSED, COULD_NOT_MEASURE = 0, 1, 2


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        import jax
        import rich  # noqa: F401
    except ImportError as error:
        return _fail(f'{error.name} is not installed: pip install "flaxnets[parity]"')
    from benchmarks.measure import CouldNotMeasureError

    # This process only counts operations; the device is for the sides' processes.
    platforms = jax.config.values["jax_platforms"]
    jax.config.update("jax_platforms", "cpu")
    try:
        others = {"guard": _guard, "show": _show, "traffic": _traffic}
        return others.get(options.work, _measure)(options)
    except CouldNotMeasureError as error:
        return _fail(str(error))
    except KeyboardInterrupt:
        print("benchmarks: stopped", file=sys.stderr)
        return 130
    finally:
        jax.config.update("jax_platforms", platforms)


def _fail(message: str) -> int:
    print(f"benchmarks: {message}", file=sys.stderr)
    return COULD_NOT_MEASURE


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Measure the networks beside PyTorch and plain Flax, in interleaved runs.",
    )
    works = parser.add_subparsers(dest="work", required=True, metavar="WORK")
    for name, work in WORKS.items():
        sub = works.add_parser(name, help=work.help, description=work.help)
        _add_options(sub, name)
    about = "count a training step's kernels and bytes on a GPU, without one"
    traffic = works.add_parser("traffic", help=about, description=about)
    traffic.add_argument("--arch", nargs="+", default=["resnet20"], metavar="NAME", help="networks")
    traffic.add_argument("--batch", type=_positive, default=128, metavar="N", help="pictures")
    traffic.add_argument("--input", type=_size, metavar="HxW", help="of the pictures")
    traffic.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
    guard = works.add_parser("guard", help="compare a fresh run's ratios with a saved --json")
    guard.add_argument("file", type=Path, help="what --json has written")
    guard.add_argument(
        "--tolerance",
        type=_percent,
        default=0.1,
        metavar="PERCENT",
        help="how much of a ratio may be lost (default: 10)",
    )
    guard.add_argument("--runs", type=_positive, metavar="N", help="runs of each side")
    about = "show saved --json files as one, and draw them"
    show = works.add_parser("show", help=about, description=about)
    show.add_argument("files", nargs="+", type=Path, metavar="FILE", help="what --json has written")
    show.add_argument("--plot", type=Path, metavar="FILE", help="draw a bar chart into a PNG")
    return parser


def _add_options(parser: argparse.ArgumentParser, name: str) -> None:
    work = WORKS[name]
    if name != "roofline":
        parser.add_argument(
            "--arch", nargs="+", default=["resnet20"], metavar="NAME", help="networks"
        )
        parser.add_argument(
            "--batch",
            nargs="+",
            type=_positive,
            default=[],
            metavar="N",
            help="pictures in a batch (default: the recipe's; 1 and 128 in inference)",
        )
        parser.add_argument(
            "--input", type=_size, metavar="HxW", help="of the pictures (default: the network's)"
        )
        parser.add_argument(
            "--no-roofline", action="store_true", help="don't measure the machine's limits first"
        )
    parser.add_argument("--dtype", choices=DTYPES, default="float32")
    parser.add_argument(
        "--sides", nargs="+", default=[], metavar="SIDE", help=f"of {', '.join(work.sides)}"
    )
    parser.add_argument(
        "--runs", type=_positive, metavar="N", help=f"of each side (default: {work.runs})"
    )
    parser.add_argument(
        "--steps",
        type=_positive,
        metavar="N",
        help="in a run (default: about two seconds', five in training)",
    )
    if name in ("epoch", "input"):
        parser.add_argument(
            "--pictures", type=_positive, default=50_000, metavar="N", help="in an epoch"
        )
    parser.add_argument("--json", type=Path, metavar="FILE", help="write all numbers to FILE")
    parser.add_argument("--plot", type=Path, metavar="FILE", help="draw a bar chart into a PNG")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _percent(text: str) -> float:
    try:
        share = float(text) / 100
    except ValueError:
        share = -1.0
    if not 0 <= share < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a percentage from 0 to 100")
    return share


def _size(text: str) -> tuple[int, int]:
    height, _, width = text.lower().partition("x")
    if not (height.isdecimal() and width.isdecimal() and int(height) and int(width)):
        raise argparse.ArgumentTypeError(f"{text!r} is not a height and width such as 224x224")
    return int(height), int(width)


def _measure(arguments: argparse.Namespace) -> int:
    from benchmarks.plan import Options
    from benchmarks.records import write_document
    from benchmarks.run import run
    from benchmarks.table import print_result

    _require_folders(arguments)
    options = Options(
        work=arguments.work,
        arch=tuple(getattr(arguments, "arch", ())),
        batch=tuple(getattr(arguments, "batch", ())),
        size=getattr(arguments, "input", None),
        dtype=arguments.dtype,
        sides=tuple(arguments.sides),
        runs=arguments.runs,
        steps=arguments.steps,
        pictures=getattr(arguments, "pictures", 50_000),
    )
    console = _console()
    with _progress(console) as progress:
        limits = not getattr(arguments, "no_roofline", True)
        result = run(options, progress, with_limits=limits)
    print_result(console, result)
    with _failures_told():
        if arguments.json is not None:
            write_document(arguments.json, result.document())
        _draw(result, arguments.plot)
    return MEASURED


def _show(arguments: argparse.Namespace) -> int:
    from benchmarks.saved import read_result
    from benchmarks.table import print_result

    _require_folders(arguments)
    result = read_result(arguments.files)
    print_result(_console(), result)
    with _failures_told():
        _draw(result, arguments.plot)
    return MEASURED


def _require_folders(arguments: argparse.Namespace) -> None:
    """Of the files that are to be written."""
    from benchmarks.measure import CouldNotMeasureError

    for flag in ("json", "plot"):
        file: Path | None = getattr(arguments, flag, None)
        if file is not None and not file.parent.is_dir():
            raise CouldNotMeasureError(f"--{flag}: there is no folder {file.parent}")


def _draw(result: Any, file: Path | None) -> None:
    if file is not None:
        from benchmarks.chart import draw

        draw(result, file)


@contextlib.contextmanager
def _failures_told() -> Iterator[None]:
    """Where a file can't be written."""
    from benchmarks.measure import CouldNotMeasureError

    try:
        yield
    except OSError as error:
        raise CouldNotMeasureError(f"{error.filename}: {error.strerror}") from error


def _guard(arguments: argparse.Namespace) -> int:
    from benchmarks.guard import compare
    from benchmarks.run import run
    from benchmarks.saved import read_file

    options, saved = read_file(arguments.file)
    if arguments.runs is not None:
        options = dataclasses.replace(options, runs=arguments.runs)
    console = _console()
    with _progress(console) as progress:
        result = run(options, progress, with_limits=False)
    then, now = saved.head["device"], result.head["device"]
    if then != now:
        console.print(f"measured then on {then}, now on {now}: such ratios say little")
    findings = compare(saved.records, result.records, arguments.tolerance)
    for finding in findings:
        console.print(str(finding), soft_wrap=True, highlight=False)
    return REGRESSED if any(finding.regressed for finding in findings) else MEASURED


def _traffic(arguments: argparse.Namespace) -> int:
    import flaxnets
    from benchmarks.measure import CouldNotMeasureError
    from benchmarks.table import print_traffic
    from benchmarks.traffic import count

    for name in arguments.arch:
        try:
            arch = flaxnets.canonical_name(name)
            height, width = arguments.input or flaxnets.info(arch).input_size
            traffic = count(arch, arguments.batch, height, width, arguments.dtype)
        except ValueError as error:
            raise CouldNotMeasureError(str(error)) from None
        title = f"{arch}, batch {arguments.batch}, {height}x{width}, {arguments.dtype}"
        print_traffic(_console(), title, traffic)
    return MEASURED


def _console() -> Any:
    from rich.console import Console

    return Console(highlight=False)


@contextlib.contextmanager
def _progress(console: Any) -> Iterator[Any]:
    """On a terminal a line that says what happens now; elsewhere nothing."""
    with console.status("starting") as status:
        yield status.update


if __name__ == "__main__":
    sys.exit(main())
