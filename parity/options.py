"""The command line of ``python -m parity``: what it takes, and what is to be compared."""

import argparse
import dataclasses
import fnmatch
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.cases import Case
    from parity.run import Settings, Task

# What --quick compares: a network of each family, and what they don't reach.
QUICK = (
    "resnet20",
    "bottleneck, ImageNet stem",
    "preact basic, activated_first zero_pad_end",
    "densenet, compression 0.7",
    "wrn_10_1",
    "wrn, meliketoy's",
    "upstream, kellerjordan, A",
    "upstream, andreasveit",
)


class CouldNotRunError(Exception):
    """Nothing was compared, for a reason that the message tells."""


def make_parser() -> argparse.ArgumentParser:
    """The options of the command."""
    parser = argparse.ArgumentParser(
        prog="python -m parity",
        description="Compare Flax networks with their PyTorch twins, layer by layer.",
        epilog="exit status: 0 all equal, 1 something is not equal, 2 it could not be compared",
    )
    what = parser.add_argument_group("what is compared")
    what.add_argument(
        "--arch", nargs="+", metavar="NAME", help="networks, or patterns such as 'wrn_*'"
    )
    what.add_argument(
        "--all", action="store_true", help="every network, option and code base, and every check"
    )
    what.add_argument(
        "--quick", action="store_true", help="some small networks, and less of every other check"
    )
    what.add_argument(
        "--check",
        nargs="+",
        metavar="CHECK",
        help="only these; those that --list names last need no network",
    )
    what.add_argument("--weights", type=Path, metavar="FILE", help="a checkpoint to compare with")
    what.add_argument("--dialect", metavar="NAME", help="the code base that FILE is from")
    what.add_argument(
        "--mutants",
        nargs="*",
        metavar="NAME",
        help="put mistakes into the Flax side, and see whether the suite finds them",
    )
    what.add_argument("--list", action="store_true", help="the names of networks and checks")
    how = parser.add_argument_group("how")
    how.add_argument("--dtype", choices=("float64", "float32", "both"), default="both")
    how.add_argument("--mode", choices=("eval", "train", "both"), default="both")
    how.add_argument("--seed", type=_at_least(0), default=0, help="of weights and inputs")
    how.add_argument("--batch", type=_at_least(1), metavar="N", help="pictures in a batch")
    how.add_argument("--input", type=_size, metavar="HxW", help="height and width of the pictures")
    how.add_argument(
        "--jobs",
        type=_at_least(1),
        metavar="N",
        help="processes (default: one for each core of a CPU, else 1)",
    )
    results = parser.add_argument_group("results")
    results.add_argument("--json", type=Path, metavar="FILE", help="write every comparison")
    results.add_argument("--html", type=Path, metavar="FILE", help="write a page to look at")
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


def chosen(options: argparse.Namespace) -> "tuple[list[Task], Settings]":
    """What the options ask for.

    Raises:
        CouldNotRunError: they ask for nothing, for something unknown, or for what doesn't go
            together.
    """
    from parity.budget import DTYPES
    from parity.comparison import MODES, NETWORK_CHECKS
    from parity.run import ALONE, Settings

    checks = _checks(options.check)
    cases = _cases(options, needed=any(check not in ALONE for check in checks))
    if options.check is None and not (options.all or options.quick):
        checks = list(NETWORK_CHECKS)
    settings = Settings(
        seed=options.seed,
        dtypes=[dtype for dtype in DTYPES if options.dtype in (dtype, "both")],
        modes=[mode for mode in MODES if options.mode in (mode, "both")],
        checks=[check for check in checks if check in NETWORK_CHECKS],
        quick=options.quick,
    )
    alone = [check for check in checks if check in ALONE]
    _refuse_what_is_ignored(options, settings.checks)
    return [*(cases if settings.checks else ()), *alone], settings


def _refuse_what_is_ignored(options: argparse.Namespace, checks: Collection[str]) -> None:
    """Raise ``CouldNotRunError`` where an option changes nothing; ``checks`` need a network."""
    if options.all + options.quick + bool(options.arch) > 1:
        raise CouldNotRunError("--arch, --quick and --all each say what to compare; give one")
    given = {"arch": options.arch, "weights": options.weights} | _how(options)
    if not checks and (ignored := [f"--{name}" for name, value in given.items() if value]):
        raise CouldNotRunError(f"{ignored[0]} is of networks, and these checks need none")
    if set(checks) == {"updates"} and (options.dtype == "float32" or options.mode == "eval"):
        raise CouldNotRunError("updates are compared in float64 and in training mode only")


def refuse_beside_mutants(options: argparse.Namespace) -> None:
    """Raise ``CouldNotRunError`` for options that mean nothing beside ``--mutants``."""
    names = ("arch", "all", "quick", "check", "weights", "dialect")
    given = {name: getattr(options, name) for name in names} | _how(options)
    if ignored := [f"--{name}" for name, value in given.items() if value]:
        raise CouldNotRunError(f"{ignored[0]} can't be combined with --mutants")


def _how(options: argparse.Namespace) -> dict[str, object]:
    """What was said of how networks are to be compared; nothing that is false by itself."""
    return {
        "dtype": options.dtype != "both",
        "mode": options.mode != "both",
        "batch": options.batch,
        "input": options.input,
    }


def _checks(names: list[str] | None) -> list[str]:
    from flaxnets import rules
    from parity.comparison import CHECKS

    if names is None:
        return list(CHECKS)
    spelled = {check.replace(" ", "-"): check for check in CHECKS}
    found = []
    for name in names:
        check = spelled.get(name.replace(" ", "-"))
        if check is None:
            near = rules.nearest(name, list(spelled))
            hint = f"did you mean {near}?" if near else "--list names them all"
            raise CouldNotRunError(f"there is no check named {name!r}; {hint}")
        found.append(check)
    return found


def _cases(options: argparse.Namespace, *, needed: bool) -> "list[Case]":
    from parity.cases import Case, all_cases, find_case

    if options.dialect and options.weights is None:
        raise CouldNotRunError("--dialect says which code base the file of --weights is from")
    if options.weights is not None:
        return [_case_of_file(options)]
    known = all_cases()
    if options.all:
        cases = list(known.values())
    elif options.arch:
        named: dict[str, Case] = {}
        for name in options.arch:
            matches = fnmatch.filter(known, name)
            try:
                found = [known[match] for match in matches] or [find_case(name)]
            except ValueError as error:
                raise CouldNotRunError(str(error)) from None
            named |= {case.name: case for case in found}
        cases = list(named.values())
    elif options.quick:
        cases = [known[name] for name in QUICK]
    elif needed:
        raise CouldNotRunError(
            "what is to be compared? name it with --arch, or say --quick or --all"
        )
    else:
        cases = []
    return [dataclasses.replace(case, **_inputs(options)) for case in cases]


def _case_of_file(options: argparse.Namespace) -> "Case":
    from parity.cases import Case

    if options.all or options.quick or (options.arch and len(options.arch) > 1):
        raise CouldNotRunError("--weights is compared as one network; name it with --arch")
    if not options.weights.is_file():
        raise CouldNotRunError(f"--weights: there is no file {options.weights}")
    arch = options.arch[0] if options.arch else ""
    case = Case(options.weights.name, arch, {}, 0, 0, weights=options.weights)
    return dataclasses.replace(case, dialect=options.dialect, **_inputs(options))


def _inputs(options: argparse.Namespace) -> dict[str, Any]:
    changes: dict[str, Any] = {}
    if options.batch is not None:
        changes["batch"] = options.batch
    if options.input is not None:
        changes["height"], changes["width"] = options.input
    return changes
