"""How the library of C++ functions is made, kept and loaded."""

import shutil
import warnings
from collections.abc import Iterator
from pathlib import Path

import jax.numpy as jnp
import pytest

from flaxnets import native, native_library

needs_compiler = pytest.mark.skipif(not native_library.is_available(), reason="no C++ compiler")


@pytest.fixture
def not_loaded(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Path]:
    """As at the start of a process whose user has nothing cached; gives the folder for that."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("FLAXNETS_NATIVE", raising=False)
    native_library._digest.cache_clear()
    yield tmp_path / "flaxnets"
    monkeypatch.undo()
    native_library._digest.cache_clear()


@needs_compiler
def test_the_library_is_kept(not_loaded: Path) -> None:
    assert native_library.is_available()
    (library,) = not_loaded.iterdir()
    made = library.stat().st_mtime_ns
    native_library._digest.cache_clear()
    assert native_library.is_available()
    assert library.stat().st_mtime_ns == made
    assert list(not_loaded.iterdir()) == [library]


@needs_compiler
def test_another_source_makes_another_library(
    not_loaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert native_library.is_available()
    sources = Path(shutil.copytree(native_library.SOURCES, tmp_path / "other"))
    with (sources / "product.h").open("a") as file:
        file.write("// something else\n")
    monkeypatch.setattr(native_library, "SOURCES", sources)
    native_library._digest.cache_clear()
    assert native_library.is_available()
    assert len(list(not_loaded.iterdir())) == 2


def test_without_a_compiler_xla_is_used(
    not_loaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.delenv("CXX", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert not native_library.is_available()
    assert not native.suits(jnp.zeros((1, 2, 2, 1)))
    assert not not_loaded.exists()


def test_it_can_be_turned_off(not_loaded: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FLAXNETS_NATIVE", "0")
    assert not native_library.is_available()
    assert not not_loaded.exists()


def test_a_compiler_that_fails_is_told_of(
    not_loaded: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    compiler = tmp_path / "c++"
    compiler.write_text('#!/bin/sh\n[ "$1" = --version ] || { echo "no such flag" >&2; exit 1; }\n')
    compiler.chmod(0o755)
    monkeypatch.setenv("CXX", str(compiler))
    with pytest.warns(UserWarning, match=r"(?s)FLAXNETS_NATIVE=0.*no such flag"):
        assert not native_library.is_available()
    assert list(not_loaded.iterdir()) == []


@needs_compiler
def test_nothing_is_loaded_from_where_others_can_write(not_loaded: Path) -> None:
    not_loaded.mkdir()
    not_loaded.chmod(0o777)
    with pytest.warns(UserWarning, match="others can write into"):
        assert not native_library.is_available()
    assert list(not_loaded.iterdir()) == []
