"""``python -m flaxnets list|info|summary|convert``: the networks, and their checkpoints.

Exit status: 0 done, 2 not understood or not possible, with one line that says why; a command may
have others of its own.
"""

import argparse
import dataclasses
import json
import os
import sys
from collections.abc import Sequence
from typing import Any, NoReturn

import flaxnets
from flaxnets import convert, rules
from flaxnets.text_table import aligned

DONE, FAILED = 0, 2


class _Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, without the usage above it."""

    def error(self, message: str) -> NoReturn:
        self.exit(FAILED, f"{self.prog}: {message} (see --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; returns the exit status."""
    options = _parser().parse_args(arguments)
    try:
        status: int = options.run(options)
        sys.stdout.flush()
    except BrokenPipeError:
        # The reader has seen enough; the interpreter's own flush at exit must not complain.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return DONE
    except (ValueError, OSError, ImportError) as error:
        print(f"flaxnets: {error}", file=sys.stderr)
        return FAILED
    return status


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="python -m flaxnets",
        description="The named networks: what they are, and what is published about them.",
    )
    # A command's ``run`` takes the options and returns the exit status; what it can't do, or not
    # without another package, it raises as ValueError, OSError or ImportError of one line.
    commands: Any = parser.add_subparsers(metavar="COMMAND", required=True)

    command = commands.add_parser("list", help="the networks, a line each")
    command.add_argument(
        "pattern",
        nargs="?",
        default="*",
        metavar="PATTERN",
        help="a part of the names, or a pattern such as 'wrn_28_*'",
    )
    _add_json(command)
    command.set_defaults(run=_list)

    command = commands.add_parser("info", help="what is published about a network")
    command.add_argument("name", metavar="NAME", help="a network's name")
    _add_json(command)
    command.set_defaults(run=_info)

    command = commands.add_parser("summary", help="a network's layers, shapes and sizes")
    command.add_argument("name", metavar="NAME", help="a network's name")
    command.add_argument(
        "--input",
        type=_size,
        metavar="S|HxW",
        help="height and width of the pictures (default: the network's own)",
    )
    command.add_argument(
        "--batch", type=_positive, default=1, metavar="N", help="pictures at a time (default: 1)"
    )
    command.add_argument(
        "--classes", type=int, metavar="N", help="outputs (default: the published number)"
    )
    _add_json(command)
    command.set_defaults(run=_summary)
    convert.add_parser(commands)
    return parser


def _add_json(command: argparse.ArgumentParser) -> None:
    command.add_argument("--json", action="store_true", help="for programs to read")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from 1 on")
    return int(text)


def _size(text: str) -> tuple[int, int]:
    sizes = text.lower().split("x")
    if len(sizes) > 2 or not all(size.isdecimal() and int(size) for size in sizes):
        raise argparse.ArgumentTypeError(
            f"{text!r} is neither a size such as 64 nor a height and width such as 48x64"
        )
    return int(sizes[0]), int(sizes[-1])


def _list(options: argparse.Namespace) -> int:
    pattern = options.pattern
    names = flaxnets.list_models(pattern if set(pattern) & set("*?[") else f"*{pattern}*")
    if not names:
        near = rules.nearest(pattern, flaxnets.list_models())
        hint = f"did you mean {near}?" if near else "'list' without a pattern names them all"
        raise ValueError(f"no network's name matches {pattern!r}; {hint}")
    networks = [flaxnets.info(name) for name in names]
    if options.json:
        return _print_json([_brief(network) for network in networks])
    rows = []
    for network in networks:
        best = network.best_error
        rows.append(
            (
                network.name,
                f"{network.parameters:,}",
                network.paper.label,
                "{}x{}".format(*network.input_size),
                f"{best.top1:5.2f} {best.dataset}" if best else "    -",
            )
        )
    header = ("network", "parameters", "paper", "input", "best test error, %")
    print(*aligned(header, rows, numeric=(1,)), sep="\n")
    return DONE


def _brief(network: flaxnets.NetworkInfo) -> dict[str, Any]:
    best = network.best_error
    return {
        "name": network.name,
        "family": network.family,
        "parameters": network.parameters,
        "paper": network.paper.label,
        "source": network.source,
        "input_size": network.input_size,
        "best_error": None if best is None else dataclasses.asdict(best),
    }


def _info(options: argparse.Namespace) -> int:
    network = flaxnets.info(options.name)
    if options.json:
        return _print_json(dataclasses.asdict(network))
    print(network)
    return DONE


def _summary(options: argparse.Namespace) -> int:
    height, width = options.input or flaxnets.info(options.name).input_size
    overrides = {} if options.classes is None else {"num_classes": options.classes}
    summary = flaxnets.summary(options.name, (options.batch, height, width, 3), **overrides)
    if options.json:
        return _print_json(summary.as_dict())
    print(summary)
    return DONE


def _print_json(value: object) -> int:
    print(json.dumps(value, indent=2, ensure_ascii=False))
    return DONE


if __name__ == "__main__":
    sys.exit(main())
