"""PyTorch's two ways to convolve, which add in different orders: its rounding error seen twice."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

# With oneDNN (cuDNN on a GPU), and without.
LIBRARIES = (True, False)


@contextlib.contextmanager
def convolution_library(enabled: bool) -> Iterator[None]:
    """PyTorch with oneDNN and cuDNN, or with its own loops, for the time of the context."""
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [library.enabled for library in libraries]
    try:
        for library in libraries:
            library.enabled = enabled
        yield
    finally:
        for library, value in zip(libraries, before, strict=True):
            library.enabled = value
