"""Kernels' gradients in C++, which JAX calls on a CPU.

XLA:CPU takes the sum over pixels, of which the gradient of a convolution's kernel is made, at half
of a core's rate, whatever form it is given. ``native.cc`` computes it near that rate. It is made
for this processor when it is first needed, with the system's C++ compiler, and kept under
``$XDG_CACHE_HOME/flaxnets`` (``~/.cache/flaxnets``). Where there is no compiler, where JAX's
default backend is no CPU, or with ``FLAXNETS_NATIVE=0`` in the environment, XLA's forms take its
place.

JAX exports such a call to a file only if it is told to (``disabled_checks`` of ``jax.export``),
since the file would need the library: to export a gradient for CPUs, set ``FLAXNETS_NATIVE=0``.
"""

import ctypes
import functools
import hashlib
import os
import platform
import shlex
import shutil
import subprocess
import tempfile
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.custom_batching import custom_vmap
from jax.experimental.custom_partitioning import custom_partitioning

from flaxnets.chunks import count_shares

SOURCE = Path(__file__).with_name("native.cc")
DTYPES = ("float32", "float64")


def suits(images: jax.Array) -> bool:
    """Whether :func:`kernel_gradient` can be called, for such pictures."""
    wanted = images.dtype in DTYPES and images.size > 0
    return wanted and jax.default_backend() == "cpu" and is_available()


def kernel_gradient(
    images: jax.Array, gradient: jax.Array, size: int, stride: int, padding: int
) -> jax.Array:
    """Gradient of a convolution's kernel.

    Args:
        images: (N, H, W, C), the convolution's input; such that it :func:`suits`.
        gradient: (N, H', W', O) at its output, of the same dtype.
        size: k.
        stride: the same in both directions.
        padding: zeros on every side of the input.

    Returns:
        (k, k, C, O) of the same dtype.
    """
    shares = count_shares(images.shape[0])
    parts = [x.reshape(shares, -1, *x.shape[1:]) for x in (images, gradient)]
    return _gradients_of_shares(size, stride, padding)(*parts).sum(axis=0)


@functools.cache
def _gradients_of_shares(size: int, stride: int, padding: int) -> Callable[..., jax.Array]:
    """From (S, N, H, W, C) and (S, N, H', W', O) to (S, k, k, C, O).

    The shares may lie on several devices; ``jax.vmap`` makes more of them.
    """

    def call(images: jax.Array, gradient: jax.Array) -> jax.Array:
        shape = images.shape[0], size, size, images.shape[-1], gradient.shape[-1]
        function = jax.ffi.ffi_call(
            _target(images.dtype, _library()), jax.ShapeDtypeStruct(shape, images.dtype)
        )
        return function(images, gradient, stride=np.int64(stride), padding=np.int64(padding))

    def partition(mesh: Any, arguments: Sequence[Any], result: Any) -> Any:
        return mesh, call, result.sharding, tuple(argument.sharding for argument in arguments)

    partitioned = custom_partitioning(call)
    partitioned.def_partition(
        partition=partition,
        sharding_rule="s n h w c, s n i j o -> s k l c o",
        need_replication_factors=tuple("nhwcijokl"),
    )
    batchable = custom_vmap(partitioned)

    @batchable.def_vmap
    def batched(
        axis_size: int, is_batched: Sequence[bool], *arguments: jax.Array
    ) -> tuple[jax.Array, bool]:
        spread = [
            x if batched else jnp.broadcast_to(x, (axis_size, *x.shape))
            for x, batched in zip(arguments, is_batched, strict=True)
        ]
        sums = batchable(*[x.reshape(-1, *x.shape[2:]) for x in spread])
        return sums.reshape(axis_size, -1, *sums.shape[1:]), True

    return batchable


def _target(dtype: Any, digest: str | None) -> str:
    return f"flaxnets_kernel_gradients_{dtype}_{digest}"


def is_available() -> bool:
    """Whether the library is there, or could be made. It is loaded then."""
    return _library() is not None


@functools.cache
def _library() -> str | None:
    """The digest of what the library is made of, which is part of its functions' names in XLA."""
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
            f"flaxnets could not make {SOURCE.name} with {shlex.join(compiler)}, and computes"
            " kernels' gradients by XLA, which is slower. FLAXNETS_NATIVE=0 silences this.\n"
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
    for dtype in DTYPES:
        function = jax.ffi.pycapsule(getattr(library, f"kernel_gradients_{dtype}"))
        jax.ffi.register_ffi_target(_target(dtype, digest), function, platform="cpu")
    _registered.add(digest)


def _compiled(compiler: list[str]) -> tuple[str, Path]:
    """The library for this processor, compiler and source, which is made if it isn't there."""
    native = "-mcpu=native" if platform.machine() in ("aarch64", "arm64") else "-march=native"
    flags = ["-std=c++17", "-O3", native, "-fPIC", "-shared", "-isystem", jax.ffi.include_dir()]
    version = subprocess.run([*compiler, "--version"], check=True, capture_output=True, text=True)
    made_of = [*compiler, version.stdout, *flags, jax.__version__, _processor(), SOURCE.read_text()]
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
            command = [*compiler, *flags, str(SOURCE), "-o", str(made)]
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
