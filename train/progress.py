"""What a run shows while it works: lines that stay and, on a terminal, a live one below them."""

import time
from contextlib import AbstractContextManager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from train.report import HEADER, Metric, duration, row


class Display(AbstractContextManager["Display"]):
    """Shows lines, the table of epochs, and on a terminal where the run is now.

    Args:
        epochs: of the run.
        steps_per_epoch: of training.
        console: rich's, on standard output by default.
    """

    def __init__(self, epochs: int, steps_per_epoch: int, console: Console | None = None) -> None:
        self._epochs = epochs
        self._steps_per_epoch = steps_per_epoch
        self._console = console or Console(highlight=False)
        self._live = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[status]}", table_column=Column(no_wrap=True)),
            console=self._console,
            transient=True,
            disable=not self._console.is_terminal,
        )
        self._task = self._live.add_task("", total=None, status="")
        self._step_seconds = 0.0
        self._test_seconds = 0.0
        self._header_shown = False

    def __enter__(self) -> "Display":
        """Begin."""
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        """End; the live line goes away."""
        self._live.stop()

    def line(self, text: str = "") -> None:
        """Print a line that stays."""
        self._console.print(text, markup=False, highlight=False, soft_wrap=True)

    def row(self, train: Metric, test: Metric) -> None:
        """Print an epoch's line of the table, under the header if it is the first."""
        if not self._header_shown:
            self.line("\n" + HEADER)
            self._header_shown = True
        self.line(row(train, test))
        self._test_seconds = test["seconds"]

    def busy(self, what: str) -> "Busy":
        """Show ``what`` while the ``with`` block runs, and measure its ``seconds``."""
        self._live.update(self._task, description=what, total=None, status="")
        return Busy()

    def training(self, step: int, step_seconds: float, batch_size: int, so_far: Metric) -> None:
        """Show where training is.

        Args:
            step: updates made.
            step_seconds: what each of the latest took.
            batch_size: pictures in an update.
            so_far: "loss" and "accuracy" of the epoch so far.
        """
        old = self._step_seconds or step_seconds
        self._step_seconds = 0.8 * old + 0.2 * step_seconds
        epoch, done = divmod(step - 1, self._steps_per_epoch)
        self._live.update(
            self._task,
            description=f"epoch {epoch + 1}/{self._epochs}",
            total=self._steps_per_epoch,
            completed=done + 1,
            status=f"step {done + 1}/{self._steps_per_epoch} loss {so_far['loss']:.4f} "
            f"accuracy {100 * so_far['accuracy']:.1f} % "
            f"{batch_size / self._step_seconds:,.0f} images/s "
            f"{duration(self._seconds_left(step))} left",
        )

    def testing(self, done: int, total: int) -> None:
        """Show how many test pictures are evaluated."""
        self._live.update(
            self._task, description="testing", total=total, completed=done, status=f"{done}/{total}"
        )

    def _seconds_left(self, step: int) -> float:
        steps = self._epochs * self._steps_per_epoch - step
        tests = self._epochs - step // self._steps_per_epoch
        return steps * self._step_seconds + tests * self._test_seconds


class Busy(AbstractContextManager["Busy"]):
    """Measures a ``with`` block, in ``seconds``."""

    seconds = 0.0

    def __enter__(self) -> "Busy":
        """Begin."""
        self._start = time.perf_counter()
        return self

    def __exit__(self, *error: object) -> None:
        """End."""
        self.seconds = time.perf_counter() - self._start
