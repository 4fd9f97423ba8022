"""What tests of several packages need."""

from collections.abc import Iterator

import jax
import pytest

from flaxnets import native_library


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Everything is computed as where there is no C++ compiler, and is traced anew for that."""
    monkeypatch.setattr(native_library, "_digest", lambda: None)
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture(params=["C++", "XLA"])
def form(request: pytest.FixtureRequest) -> None:
    """Everything is computed with the functions in C++, and then without them."""
    if request.param == "XLA":
        request.getfixturevalue("without_native")
    elif not native_library.is_available():
        pytest.skip("no C++ compiler")
