"""Changes of what is computed in C++, or by XLA where there is no C++ compiler."""

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

from flaxnets import native_library
from parity.mutants.changes import NoSuchCode, edited


@contextlib.contextmanager
def edited_without_native(function: Any, *replacements: tuple[str, str]) -> Iterator[None]:
    """``edited``, where everything is computed as if there were no C++ compiler."""
    with (
        mock.patch.object(native_library, "_digest", return_value=None),
        edited(function, *replacements),
    ):
        yield


@contextlib.contextmanager
def edited_cpp(file: str, before: str, after: str) -> Iterator[None]:
    """The C++ is compiled with some of a file's text replaced, into a folder of its own.

    Raises:
        NoSuchCode: the text is not there, or more than once.
    """
    source = (native_library.SOURCES / file).read_text()
    if source.count(before) != 1:
        raise NoSuchCode(f"{file} has {before!r} {source.count(before)} times")
    with tempfile.TemporaryDirectory() as folder:
        sources = Path(shutil.copytree(native_library.SOURCES, Path(folder) / "cpp"))
        (sources / file).write_text(source.replace(before, after))
        native_library._digest.cache_clear()
        try:
            with (
                mock.patch.object(native_library, "SOURCES", sources),
                mock.patch.dict(os.environ, XDG_CACHE_HOME=folder),
            ):
                native_library.is_available()
                yield
        finally:
            native_library._digest.cache_clear()
