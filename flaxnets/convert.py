"""``python -m flaxnets convert``: a checkpoint of one code base, written for another."""

import argparse
import dataclasses
import importlib.util
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import jax
import numpy as np

from flaxnets.checkpoint_files import read_state_dict
from flaxnets.dialects import BATCHES_TRACKED, DIALECTS, OWN, Dialect
from flaxnets.layout import layout
from flaxnets.matching import Match, match, named_networks
from flaxnets.text_table import aligned
from flaxnets.torch_bridge import dialect_for, load_torch, save_torch

NAMES = tuple(dict.fromkeys(dialect.name for dialect in DIALECTS))
PROVED, DIFFERENT = 0, 1


def add_parser(commands: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the ``convert`` subcommand."""
    parser = commands.add_parser(
        "convert",
        help="write a checkpoint in another code base's names",
        description="Recognise a PyTorch checkpoint, write it in another code base's key names, "
        "and prove that it computes the same (where torch is installed).",
    )
    parser.add_argument("source", type=Path, metavar="IN", help=".pth, .pt, .th or .safetensors")
    parser.add_argument("target", type=Path, metavar="OUT", help=".pth, .pt, .th or .safetensors")
    parser.add_argument("--arch", metavar="NAME", help="the network (default: recognised)")
    parser.add_argument(
        "--dialect", choices=NAMES, metavar="NAME", help="code base of IN (default: recognised)"
    )
    parser.add_argument(
        "--to-dialect",
        choices=NAMES,
        default=OWN,
        metavar="NAME",
        help=f"code base of OUT: {', '.join(NAMES)} (default: {OWN})",
    )
    parser.add_argument(
        "--set",
        dest="options",
        action="append",
        default=[],
        type=option,
        metavar="FIELD=VALUE",
        help="a field of the network's config that the weights don't tell, such as dropout=0.3",
    )
    parser.add_argument(
        "--dry-run", action="store_true", help="show every key's way, write nothing"
    )
    parser.add_argument("--force", action="store_true", help="replace OUT where it exists")
    parser.set_defaults(run=run)


def option(text: str) -> tuple[str, object]:
    """A config field and its value from the command line: "dropout=0.3"."""
    field, separator, value = text.partition("=")
    if not separator:
        raise argparse.ArgumentTypeError(f"{text!r} is not FIELD=VALUE")
    for kind in (int, float):
        try:
            return field, kind(value)
        except ValueError:
            continue
    return field, {"true": True, "false": False}.get(value.lower(), value)


def run(options: argparse.Namespace) -> int:
    """Convert, show each key's way, and prove the result; the exit status."""
    source, target, fields = options.source, options.target, dict(options.options)
    if target.resolve() == source.resolve():
        raise ValueError(f"{source} would replace itself; name another file to write")
    if target.exists() and not options.force and not options.dry_run:
        raise FileExistsError(f"{target} exists; --force replaces it")
    arrays = read_state_dict(source)
    shapes = {key: array.shape for key, array in arrays.items()}
    found = match(shapes, arch=options.arch, dialect=options.dialect, options=fields)
    into = dialect_for(found.config, options.to_dialect)
    print(*aligned(("in", "flax", "out", "shape", "dtype"), _ways(found, into, arrays)), sep="\n")
    print(f"\n{_describe(found)}\nfrom the names of {found.dialect.source}")
    print(f"to those of {into.source}; {len(arrays)} keys, each used once")
    for note in dict.fromkeys(each.note for each in (found.dialect, into) if each.note):
        print(f"note: {note}")
    if options.dry_run:
        print("nothing was written (--dry-run)")
        return PROVED
    with jax.enable_x64(any(array.dtype == np.float64 for array in arrays.values())):
        model = load_torch(
            arrays, options.arch, dialect=options.dialect, param_dtype=None, **fields
        )
        save_torch(model, target, options.to_dialect)
    written = read_state_dict(target)
    wrong = [
        key
        for key, array in arrays.items()
        if (into.counts_batches or not key.endswith(BATCHES_TRACKED))
        and not _same(array, written.get(into.to_upstream(found.dialect.from_upstream(key) or key)))
    ]
    if wrong:
        print(f"wrote {target}; read back, it DIFFERS in {', '.join(wrong)}")
        return DIFFERENT
    print(f"wrote {target}; read back, every value is that of {source} to the bit")
    return _prove(options, fields)


def _same(array: np.ndarray, written: np.ndarray | None) -> bool:
    """Whether what was written has the values that were read; float16 may have become wider."""
    return written is not None and np.array_equal(
        array, written.astype(array.dtype), equal_nan=True
    )


def _prove(options: argparse.Namespace, fields: dict[str, object]) -> int:
    """Compare outputs with PyTorch's, in a process of its own: this package never imports torch."""
    if any(importlib.util.find_spec(name) is None for name in ("torch", "torchvision")):
        print("the outputs were not compared, which needs torch and torchvision")
        return PROVED
    command = [sys.executable, "-m", "parity.converted", str(options.source), str(options.target)]
    for name in ("arch", "dialect", "to_dialect"):
        if getattr(options, name):
            command += [f"--{name.replace('_', '-')}", getattr(options, name)]
    for field, value in fields.items():
        command += ["--set", f"{field}={value}"]
    return subprocess.run(command, check=False).returncode


def _ways(
    found: Match, into: Dialect, arrays: Mapping[str, np.ndarray]
) -> list[tuple[str, str, str, str, str]]:
    """For every variable: key in IN, path in Flax, key in OUT, shape in PyTorch, dtype in IN."""
    keys = {found.dialect.from_upstream(key): key for key in arrays}
    rows = []
    for entry in layout(found.config):
        key = keys.get(entry.key)
        left_out = entry.key.endswith(BATCHES_TRACKED) and not into.counts_batches
        rows.append(
            (
                key or "(absent, becomes 0)",
                ".".join(entry.path),
                "(left out)" if left_out else into.to_upstream(entry.key),
                "x".join(map(str, entry.shape)) or "()",
                str(arrays[key].dtype) if key else "int64",
            )
        )
    return rows


def _describe(found: Match) -> str:
    """The network's name, or names, and every choice that its config makes."""
    names = " or ".join(named_networks(found.config))
    fields = dataclasses.asdict(found.config)
    choices = ", ".join(f"{field} {value}" for field, value in fields.items() if field != "init")
    family = type(found.config).__name__.removesuffix("Config")
    return f"{names or 'no named network'}: {family} with {choices}"
