"""Which package may import which, read from the source, and what an import brings along."""

import ast
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FORBIDDEN = {
    "flaxnets": {"torch", "torchvision", "optax", "orbax", "train", "parity", "torchref"},
    "torchref": {"jax", "jaxlib", "flax", "flaxnets", "optax", "orbax", "train", "parity"},
    "train": {"torch", "torchvision", "torchref", "parity"},
    "parity": set[str](),
    "benchmarks": set[str](),
}
EVERYWHERE = {"benchmarks", "tests"}  # they import the packages, not the reverse


def sources(package: str) -> list[Path]:
    files = sorted((ROOT / package).rglob("*.py"))
    assert files, f"{package} has no source files"
    return files


def imported(source: str) -> set[str]:
    """Top-level names that a source imports anywhere in it, by whichever kind of import."""
    names = set()
    for node in ast.walk(ast.parse(source)):
        match node:
            case ast.Import():
                names |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(name), level=0):
                names.add(name)
            case ast.Call(args=[ast.Constant(value=str(name)), *_]) if re.search(
                r"import(_module|__)?$", ast.unparse(node.func)
            ):
                names.add(name)
    return {name.partition(".")[0] for name in names}


def dynamic_imports(source: str) -> Iterator[str]:
    """Functions (or "module level") that import by a name which they compute."""

    def walk(node: ast.AST, function: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                yield from walk(child, child.name)
                continue
            if isinstance(child, ast.Call):
                callee = ast.unparse(child.func)
                constant = bool(child.args) and isinstance(child.args[0], ast.Constant)
                if re.search(r"(^|\.)(import_module|__import__)$", callee) and not constant:
                    yield function
            yield from walk(child, function)

    yield from walk(ast.parse(source), "module level")


def test_the_readers_of_imports() -> None:
    source = """
import torch.nn as nn, numpy
from jax.numpy import ones
from . import layers
def f(name):
    import optax
    with g():
        importlib.import_module("train.step")
        return __import__("orbax"), import_module(name), _import("parity", 1), re.match("flax")
class C:
    x = importlib.import_module(f"a{b}")
"""
    assert imported(source) == {"torch", "numpy", "jax", "optax", "train", "orbax", "parity"}
    assert list(dynamic_imports(source)) == ["f", "module level"]


@pytest.mark.parametrize("package", FORBIDDEN)
def test_no_package_imports_what_it_must_not(package: str) -> None:
    for path in sources(package):
        allowed = (
            {"torch"} if path.name == "checkpoint_files.py" and package == "flaxnets" else set()
        )
        forbidden = (FORBIDDEN[package] | EVERYWHERE) - {package}
        found = imported(path.read_text()) & forbidden
        assert found <= allowed, f"{path.relative_to(ROOT)} imports {sorted(found - allowed)}"


def test_one_function_reaches_for_torch() -> None:
    """The bridge imports readers of files lazily, by name, in one place; nothing else does."""
    found = [
        (path.name, function)
        for path in sources("flaxnets")
        for function in dynamic_imports(path.read_text())
    ]
    assert found == [("checkpoint_files.py", "import_reader")]
    tree = ast.parse((ROOT / "flaxnets" / "checkpoint_files.py").read_text())
    statements = [node for node in ast.walk(tree) if isinstance(node, ast.Import | ast.ImportFrom)]
    assert "torch" not in imported("\n".join(ast.unparse(node) for node in statements))


@pytest.mark.parametrize("package", ["torchref", "train"])
def test_other_packages_import_by_constant_names_only(package: str) -> None:
    for path in sources(package):
        assert list(dynamic_imports(path.read_text())) == [], path.relative_to(ROOT)


def test_base_requirements_suffice_for_the_networks() -> None:
    """Every third-party module that flaxnets imports by statement is a base requirement."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    base = {re.match(r"[\w-]+", requirement)[0] for requirement in project["dependencies"]}
    assert base == {"jax", "flax", "numpy"}
    found = set().union(*(imported(path.read_text()) for path in sources("flaxnets")))
    lazily = {"torch", "safetensors"}  # read files, and say how to install them
    assert found - set(sys.stdlib_module_names) - {"flaxnets"} <= base | lazily


def python(code: str) -> str:
    """Run it in a new process, at the root of the project; its last line of output."""
    process = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    return process.stdout.strip().splitlines()[-1]


def test_import_brings_nothing_beyond_jax_and_flax() -> None:
    """Whatever flax itself imports is here before; flaxnets adds nobody else's module."""
    code = """
import sys
import jax, jax.numpy, flax.nnx, flax.typing, numpy
before = set(sys.modules)
import flaxnets
new = {name.partition(".")[0] for name in set(sys.modules) - before} - {"jax"}
print(sorted(new - set(sys.stdlib_module_names)), "torch" in sys.modules, "orbax" in sys.modules)
"""
    assert python(code) == "['flaxnets'] False False"


def test_networks_are_made_and_moved_without_the_extras() -> None:
    """With every package of the extras blocked, except those that flax itself requires."""
    code = """
import importlib.metadata, re, sys, tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
extras = sum(project["optional-dependencies"].values(), [])
flax = [r for r in importlib.metadata.requires("flax") if "extra ==" not in r]
names, known = ({re.match(r"[\\w-]+", r)[0].lower() for r in rs} for rs in (extras, flax))
modules = {"scikit-learn": "sklearn", "orbax-checkpoint": "orbax"}
blocked = {modules.get(n, n) for n in names - known - {"flaxnets", "jax"}}
for name in blocked:
    sys.modules[name] = None
import flaxnets
from flax import nnx
options = {"depth": 10, "widen_factor": 1, "num_classes": 3}
model = flaxnets.create("wrn", rngs=nnx.Rngs(0), **options)
again = flaxnets.load_torch(flaxnets.to_torch(model), "wrn", **options)
print(flaxnets.count_parameters(again), *sorted(blocked & {"torch", "safetensors", "sklearn"}))
"""
    assert python(code) == "77395 safetensors sklearn torch"
