"""PyTorch's ways to compute, which add in different orders: its rounding error seen three times.

Convolutions come from oneDNN (cuDNN on a GPU) or from PyTorch's own loops. Batch norm has loops for
maps in channels-last memory, and others for contiguous ones.
"""

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch


class Way(NamedTuple):
    """One way to compute.

    Attributes:
        library: convolutions come from oneDNN (cuDNN on a GPU), else from PyTorch's own loops.
        channels_last: how maps lie in memory.
    """

    library: bool
    channels_last: bool


WAYS = (Way(True, True), Way(False, True), Way(True, False))

_CHANNELS_LAST: contextvars.ContextVar[bool] = contextvars.ContextVar("channels_last", default=True)


@contextlib.contextmanager
def computing(way: Way) -> Iterator[None]:
    """PyTorch computes in this way for the time of the context."""
    libraries: tuple[Any, ...] = (torch.backends.mkldnn, torch.backends.cudnn)
    before = [library.enabled for library in libraries]
    token = _CHANNELS_LAST.set(way.channels_last)
    try:
        for library in libraries:
            library.enabled = way.library
        yield
    finally:
        _CHANNELS_LAST.reset(token)
        for library, value in zip(libraries, before, strict=True):
            library.enabled = value


def memory_format() -> torch.memory_format:
    """How maps are to lie in memory in this context."""
    return torch.channels_last if _CHANNELS_LAST.get() else torch.contiguous_format
