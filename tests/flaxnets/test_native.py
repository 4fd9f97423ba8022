"""Kernels' gradients in C++ against automatic differentiation of XLA's own convolution."""

import os
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flaxnets import native
from flaxnets.convolution import plain_conv2d

needs_compiler = pytest.mark.skipif(not native.is_available(), reason="no C++ compiler")


def arrays(
    shape: tuple[int, ...], features: int, size: int, stride: int, padding: int
) -> tuple[np.ndarray, np.ndarray]:
    """An input, and a gradient at the output."""
    draw = np.random.default_rng(0).standard_normal
    pictures, *lengths, _ = shape
    output = [(length + 2 * padding - size) // stride + 1 for length in lengths]
    return draw(shape), draw((pictures, *output, features))


def expected(images: jax.Array, gradient: jax.Array, *options: int) -> jax.Array:
    size, stride, padding = options
    kernel = jnp.zeros((size, size, images.shape[-1], gradient.shape[-1]), images.dtype)
    return jax.vjp(lambda k: plain_conv2d(images, k, stride, padding), kernel)[1](gradient)[0]


# images (N, H, W, C), features, size, stride, padding
CASES = {
    "few of both": ((3, 6, 5, 2), 3, 3, 1, 1),
    "many features": ((3, 6, 5, 2), 70, 3, 1, 1),
    "many channels": ((3, 6, 5, 40), 12, 3, 1, 1),
    "many of both": ((2, 5, 6, 70), 130, 3, 1, 1),
    "features that threads share": ((1, 4, 4, 3), 401, 1, 1, 0),
    "pictures that threads share": ((7, 32, 32, 3), 5, 3, 1, 1),
    "strips of pictures": ((2, 61, 33, 5), 6, 3, 1, 1),
    "strips of strided pictures": ((2, 61, 66, 4), 17, 7, 2, 3),
    "rows of more than a strip": ((2, 3, 600, 2), 3, 3, 1, 1),
    "several pictures at a time": ((33, 5, 7, 9), 10, 3, 1, 1),
    "stride 2, odd picture": ((4, 9, 7, 3), 5, 3, 2, 1),
    "stride 3": ((3, 10, 11, 2), 2, 3, 3, 1),
    "stride of more than the kernel": ((3, 10, 11, 20), 33, 1, 2, 0),
    "even kernel": ((3, 6, 5, 2), 7, 2, 1, 0),
    "much padding": ((2, 4, 5, 3), 6, 3, 1, 4),
    "one pixel": ((3, 1, 1, 2), 2, 3, 2, 1),
}


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_value_in_float64(case: str) -> None:
    shape, features, *options = CASES[case]
    with jax.enable_x64():
        images, gradient = map(jnp.asarray, arrays(shape, features, *options))
        found = jax.jit(lambda x, g: native.kernel_gradient(x, g, *options))(images, gradient)
        assert found.dtype == jnp.float64
        np.testing.assert_allclose(found, expected(images, gradient, *options), atol=1e-11)


@needs_compiler
@pytest.mark.parametrize("case", CASES)
def test_float32_is_nearly_as_exact_as_xlas(case: str) -> None:
    shape, features, *options = CASES[case]
    double = arrays(shape, features, *options)
    single = [jnp.asarray(x, jnp.float32) for x in double]
    found, other = native.kernel_gradient(*single, *options), expected(*single, *options)
    with jax.enable_x64():
        oracle = np.asarray(expected(*map(jnp.asarray, double), *options))
    scale = np.abs(oracle).max()
    worst, xlas = (np.abs(x - oracle).max() / scale for x in (found, other))
    assert found.dtype == jnp.float32
    assert worst < max(2 * xlas, 1e-6)


@needs_compiler
def test_a_long_sum_keeps_its_digits() -> None:
    """One float32 sum of 2^20 tenths is off by 4 %; in sums of 512 each 2,560 roundings add up."""
    images = jnp.full((16, 256, 256, 1), 0.1, jnp.float32)
    found = native.kernel_gradient(images, jnp.ones_like(images), 1, 1, 0)
    np.testing.assert_allclose(found, np.float32(0.1) * 2**20, rtol=2560 * 2**-24)


@needs_compiler
def test_numbers_that_are_not_finite_stay() -> None:
    images = jnp.zeros((1, 4, 4, 2)).at[0, 1, 1, 0].set(jnp.nan)
    found = native.kernel_gradient(images, jnp.ones((1, 4, 4, 3)), 3, 1, 1)
    assert jnp.isnan(found[:, :, 0]).all()
    assert jnp.isfinite(found[:, :, 1]).all()


@needs_compiler
def test_batches_of_batches() -> None:
    images, gradient = map(jnp.asarray, arrays((6, 5, 4, 2), 3, 3, 1, 1))
    pairs = [x.reshape(3, 2, *x.shape[1:]) for x in (images, gradient)]

    def one(x: jax.Array, g: jax.Array) -> jax.Array:
        return native.kernel_gradient(x, g, 3, 1, 1)

    together = jax.vmap(one)(*pairs)
    alone = jnp.stack([one(x, g) for x, g in zip(*pairs, strict=True)])
    np.testing.assert_allclose(together, alone, atol=1e-5)
    twice = jax.vmap(lambda g: jax.vmap(one, (0, None))(pairs[0], g))(pairs[1])
    assert twice.shape == (3, 3, 3, 3, 2, 3)
    np.testing.assert_allclose(twice[2, 1], one(pairs[0][1], pairs[1][2]), atol=1e-5)


TWO_DEVICES = """
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from flaxnets import native

assert jax.device_count() == 2
mesh = jax.make_mesh((2,), ("data",))
split, whole = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (["data"], []))
draw = np.random.default_rng(0).standard_normal
arrays = [draw((8, 6, 6, n)).astype(np.float32) for n in (5, 20)]
function = jax.jit(
    lambda x, g: native.kernel_gradient(x, g, 3, 1, 1), in_shardings=split, out_shardings=whole
)
compiled = function.lower(*arrays).compile()
text = compiled.as_text()
assert text.count(" all-reduce(") == 1, text
assert "all-gather" not in text and "collective-permute" not in text, text
assert text.count('custom_call_target="flaxnets_kernel_gradients_float32') == 1, text
alone = native.kernel_gradient(*(jax.device_put(x, jax.devices()[0]) for x in arrays), 3, 1, 1)
np.testing.assert_allclose(compiled(*jax.device_put(arrays, split)), alone, atol=1e-4)
"""


@needs_compiler
@pytest.mark.parametrize("flags", ["", "--xla_cpu_multi_thread_eigen=false"])
def test_each_device_computes_its_own_pictures(flags: str) -> None:
    """The devices exchange their sums once, and no pictures; with XLA's threads and without."""
    settings = {"JAX_PLATFORMS": "cpu", "JAX_NUM_CPU_DEVICES": "2", "XLA_FLAGS": flags}
    subprocess.run([sys.executable, "-c", TWO_DEVICES], env=os.environ | settings, check=True)


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As at the start of a process whose user has nothing cached; gives the folder for that."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FLAXNETS_NATIVE", raising=False)
    native._library.cache_clear()
    yield tmp_path / "flaxnets"
    monkeypatch.undo()
    native._library.cache_clear()


@needs_compiler
def test_the_library_is_kept(not_loaded: Path) -> None:
    assert native.is_available()
    (library,) = not_loaded.iterdir()
    made = library.stat().st_mtime_ns
    native._library.cache_clear()
    assert native.is_available()
    assert library.stat().st_mtime_ns == made
    assert list(not_loaded.iterdir()) == [library]


@needs_compiler
def test_another_source_makes_another_library(
    not_loaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert native.is_available()
    source = tmp_path / "other.cc"
    source.write_text(native.SOURCE.read_text() + "// something else\n")
    monkeypatch.setattr(native, "SOURCE", source)
    native._library.cache_clear()
    assert native.is_available()
    assert len(list(not_loaded.iterdir())) == 2


def test_without_a_compiler_xla_is_used(
    not_loaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not native.is_available()
    assert not native.suits(jnp.zeros((1, 2, 2, 1)))
    assert not not_loaded.exists()


def test_it_can_be_turned_off(not_loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAXNETS_NATIVE", "0")
    assert not native.is_available()
    assert not not_loaded.exists()


def test_a_compiler_that_fails_is_told_of(
    not_loaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo "no such flag" >&2; exit 1; }\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.warns(UserWarning, match=r"(?s)FLAXNETS_NATIVE=0.*no such flag"):
        assert not native.is_available()
    assert list(not_loaded.iterdir()) == []


@needs_compiler
def test_nothing_is_loaded_from_where_others_can_write(not_loaded: Path) -> None:
    not_loaded.mkdir()
    not_loaded.chmod(0o777)
    with pytest.warns(UserWarning, match="others can write into"):
        assert not native.is_available()
    assert list(not_loaded.iterdir()) == []


def test_half_precision_and_empty_batches_are_left_to_xla() -> None:
    assert not native.suits(jnp.zeros((1, 2, 2, 1), jnp.bfloat16))
    assert not native.suits(jnp.zeros((0, 2, 2, 1)))
