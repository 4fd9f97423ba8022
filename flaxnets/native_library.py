"""The library of functions in C++: made for this processor, kept, and loaded.

It is made from the files in ``cpp/`` when it is first needed, with the system's C++ compiler, and
kept under ``$XDG_CACHE_HOME/flaxnets`` (``~/.cache/flaxnets``).
"""

import ctypes
import functools
import hashlib
import itertools
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from pathlib import Path
from typing import Any

import jax

SOURCES = Path(__file__).with_name("cpp")
MAIN = "native.cc"
FUNCTIONS = (
    "kernel_gradients",
    "expansions",
    "expansion_gradients",
    "channel_moments",
    "channel_means",
    "narrow_convolutions",
)
DTYPES = ("float32", "float64")


def is_available() -> bool:
    """Whether the library is there, or could be made. It is loaded then."""
    return _digest() is not None


def target(name: str, dtype: Any) -> str:
    """What XLA knows one of the ``FUNCTIONS`` by, once the library is loaded."""
    return _target(name, dtype, _digest())


def _target(name: str, dtype: Any, digest: str | None) -> str:
    return f"flaxnets_{name}_{dtype}_{digest}"


@functools.cache
def _digest() -> str | None:
    """Of what the library is made of; part of its functions' names, as others may be loaded too."""
    if os.environ.get("FLAXNETS_NATIVE") == "0" or os.name != "posix":
        return None
    compiler = shlex.split(
        os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or ""
    )
    if not compiler:
        return None
    try:
        digest, path = _compiled(compiler)
        _register(digest, path)
    except (OSError, subprocess.CalledProcessError) as error:
        reason = getattr(error, "stderr", None) or str(error)
        warnings.warn(
            f"flaxnets could not make {MAIN} with {shlex.join(compiler)}, and computes all by XLA,"
            " which is slower. FLAXNETS_NATIVE=0 silences this.\n"
            f"{reason.strip()[:2000]}",
            stacklevel=2,
        )
        return None
    return digest


_registered: set[str] = set()


def _register(digest: str, path: Path) -> None:
    if digest in _registered:
        return
    library = ctypes.CDLL(str(path))
    for name, dtype in itertools.product(FUNCTIONS, DTYPES):
        function = jax.ffi.pycapsule(getattr(library, f"{name}_{dtype}"))
        jax.ffi.register_ffi_target(_target(name, dtype, digest), function, platform="cpu")
    _registered.add(digest)


def _compiled(compiler: list[str]) -> tuple[str, Path]:
    """The library for this processor, compiler and source, which is made if it isn't there."""
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    flags = ["-std=c++17", "-O3", native, "-fPIC", "-shared", "-isystem", jax.ffi.include_dir()]
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, text=True)
    sources = [path.read_text() for path in sorted(SOURCES.iterdir())]
    made_of = [*compiler, version.stdout, *flags, jax.__version__, _processor(), *sources]
    digest = hashlib.sha256("\0".join(made_of).encode()).hexdigest()[:16]

    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "flaxnets"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = folder.stat()
    if status.st_uid != os.getuid() or status.st_mode & 0o022:
        raise PermissionError(
            f"others can write into {folder}, and code would be loaded from there"
        )
    library = folder / f"native-{digest}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            made = Path(scratch) / library.name
            command = [*compiler, *flags, str(SOURCES / MAIN), "-o", str(made)]
            subprocess.run(command, check=True, capture_output=True, text=True)
            made.replace(library)
    return digest, library


def _processor() -> str:
    """What ``native`` means for the compiler here."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line for line in lines if line.startswith(("flags", "Features"))), "")
