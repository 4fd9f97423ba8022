"""PyTorch's two ways to compute, which add in different orders: its rounding error seen twice.

Convolutions come from oneDNN (cuDNN on a GPU) or from PyTorch's own loops. Batch norm has loops for
maps in channels-last memory and others for contiguous ones; each goes with one of the two.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

# With oneDNN (cuDNN on a GPU) and channels-last memory, and without.
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


def memory_format() -> torch.memory_format:
    """How feature maps are to lie in memory in the way to compute that is set."""
    return torch.channels_last if torch.backends.mkldnn.enabled else torch.contiguous_format
