"""What tests of several packages need."""

import pytest

from flaxnets import native


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch) -> None:
    """Kernels' gradients are computed as where there is no C++ compiler."""
    monkeypatch.setattr(native, "_library", lambda: None)
