"""What tests of several packages need."""

import pytest

from flaxnets import native_library


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is computed as where there is no C++ compiler."""
    monkeypatch.setattr(native_library, "_digest", lambda: None)


@pytest.fixture(params=["C++", "XLA"])
def form(request: pytest.FixtureRequest) -> None:
    """Everything is computed with the functions in C++, and then without them."""
    if request.param == "XLA":
        request.getfixturevalue("without_native")
    elif not native_library.is_available():
        pytest.skip("no C++ compiler")
