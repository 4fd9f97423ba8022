"""What tests of several packages need."""

import pytest

from flaxnets import native_library


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything is computed as where there is no C++ compiler."""
    monkeypatch.setattr(native_library, "_digest", lambda: None)
