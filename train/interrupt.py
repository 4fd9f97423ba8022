"""Stopping a run in good order on SIGINT (Ctrl-C) and SIGTERM."""

import signal
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from types import FrameType


class Interrupted(Exception):
    """A signal asked the run to stop.

    Attributes:
        status: the exit status for it, 128 plus the signal's number.
    """

    def __init__(self, number: int) -> None:
        super().__init__(signal.Signals(number).name)
        self.status = 128 + number


class Signals(AbstractContextManager["Signals"]):
    """Remembers a signal until the loop asks for it; a second one takes effect at once.

    Args:
        note: is called with a line to show when the first signal comes.
    """

    def __init__(self, note: Callable[[str], None]) -> None:
        self._note = note
        self._number: int | None = None

    def __enter__(self) -> "Signals":
        """Listen, where Python allows it: in the main thread."""
        in_main = threading.current_thread() is threading.main_thread()
        numbers = (signal.SIGINT, signal.SIGTERM) if in_main else ()
        self._before = {number: signal.signal(number, self._remember) for number in numbers}
        return self

    def __exit__(self, *error: object) -> None:
        """Give the signals back to those who handled them before."""
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def check(self) -> None:
        """Raise :class:`Interrupted` if a signal has come."""
        if self._number is not None:
            raise Interrupted(self._number)

    def _remember(self, number: int, frame: FrameType | None) -> None:
        del frame
        if self._number is not None:
            raise KeyboardInterrupt
        self._number = number
        self._note("Stopping after the steps under way (a second signal stops at once) ...")
