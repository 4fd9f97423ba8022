"""One run in progress: epochs, evaluation, checkpoints, and stopping in good order."""

import dataclasses
import math
import time
from typing import NoReturn

import numpy as np

from train import plots, report
from train.checkpoint import Checkpoints
from train.engine import Engine
from train.interrupt import Interrupted, Signals
from train.progress import Display
from train.recipes import Config
from train.run_folder import Metric, RunFolder, describe_device

_SECONDS_BETWEEN_PLOTS = 20.0


class NonFinite(ArithmeticError):
    """The loss or a parameter became infinite or not a number."""


@dataclasses.dataclass
class Totals:
    """What the epoch under way has come to; saved with each checkpoint."""

    loss: float = 0.0
    correct: int = 0
    steps: int = 0
    seconds: float = 0.0
    compile_seconds: float = 0.0

    def add(self, losses: np.ndarray, correct: int, seconds: float) -> None:
        """Count one dispatch."""
        self.loss += float(losses.sum(dtype=np.float64))
        self.correct += correct
        self.steps += len(losses)
        self.seconds += seconds

    def metrics(self, batch_size: int) -> Metric:
        """Mean loss, accuracy (0 to 1) and speed over the steps counted so far."""
        pictures = self.steps * batch_size
        return {
            "loss": self.loss / self.steps,
            "accuracy": self.correct / pictures,
            "images_per_second": pictures / self.seconds,
            "seconds": self.seconds,
            "compile_seconds": self.compile_seconds,
        }


class Trainer:
    """One run in progress."""

    def __init__(
        self,
        config: Config,
        engine: Engine,
        folder: RunFolder,
        display: Display,
        signals: Signals,
    ) -> None:
        self.config = config
        self.folder = folder
        self.display = display
        self.signals = signals
        self.engine = engine
        self.rates = engine.rates
        self.total_steps = config.epochs * engine.steps_per_epoch
        self.last = Checkpoints(folder.checkpoints("last"))
        self.best = Checkpoints(folder.checkpoints("best"))
        self.step = 0
        self.totals = Totals()
        self.plotted = time.perf_counter()

    def close(self) -> None:
        """Let go of the checkpoint folders."""
        self.last.close()
        self.best.close()

    def restore(self) -> None:
        """Take up the last checkpoint; without one, the run begins anew."""
        if self.last.step is not None:
            self.engine.state, totals = self.last.restore(self.engine.state)
            self.step = int(self.engine.state.step)
            self.totals = Totals(**totals)
        self.folder.forget_after(self.step)
        if self.step % self.engine.steps_per_epoch == 0 and not self._evaluation_is_due():
            self.totals = Totals()
        self.display.line(f"resumed at step {self.step:,} of {self.total_steps:,}")
        if self.folder.record["device"] != describe_device():
            self.display.line(
                "The run began on another machine or devices: its numbers may now differ in the "
                "last bits from those of a run that stayed there."
            )

    def run(self) -> int:
        """Train to the end, and return the exit status."""
        begun = time.perf_counter()
        try:
            self._train()
        except Interrupted as interrupted:
            self._save()
            self.display.line(report.stopped(interrupted, self.step, self.total_steps, self.folder))
            return interrupted.status
        except NonFinite as error:
            self.display.line(f"\n{error}")
            return 1
        finally:
            self._plot()
        for line in report.conclusion(self.folder, time.perf_counter() - begun):
            self.display.line(line)
        return 0

    def _train(self) -> None:
        pending = self._evaluation_is_due()
        if self.step < self.total_steps or pending:
            self._compile()
        for train, test in self.folder.epochs():
            self.display.row(train, test)
        if pending:
            self._finish_epoch()
        while self.step < self.total_steps:
            self.signals.check()
            self._advance()
            if self.step % self.engine.steps_per_epoch == 0:
                self._finish_epoch()

    def _compile(self) -> None:
        training = 0.0
        if self.step < self.total_steps:
            training = self._compile_chunk(self.engine.dispatch_length(self.step))
        with self.display.busy("compiling the evaluation") as evaluation:
            self.engine.compile_evaluation()
        self.totals.compile_seconds += evaluation.seconds
        self.display.line(
            f"compiled in {training:.1f} s (training) and {evaluation.seconds:.1f} s (evaluation)"
        )

    def _compile_chunk(self, length: int) -> float:
        with self.display.busy("compiling the training steps") as compiling:
            self.engine.compile_chunk(length)
        self.totals.compile_seconds += compiling.seconds
        return compiling.seconds

    def _advance(self) -> None:
        """Make one dispatch, and see what came of it."""
        length = self.engine.dispatch_length(self.step)
        if not self.engine.is_compiled(length):
            self._compile_chunk(length)
        begun = time.perf_counter()
        losses, correct, finite = self.engine.advance(length)
        seconds = time.perf_counter() - begun
        self._require_finite(losses, finite)
        before, self.step = self.step, self.step + length
        self.totals.add(losses, correct, seconds)
        self.display.training(
            self.step,
            seconds / length,
            self.config.batch_size,
            self.totals.metrics(self.config.batch_size),
        )
        every = self.config.checkpoint_every
        in_epoch = self.step % self.engine.steps_per_epoch
        if every and in_epoch and self.step // every > before // every:
            self._save()

    def _require_finite(self, losses: np.ndarray, finite: bool) -> None:
        bad = np.flatnonzero(~np.isfinite(losses))
        if bad.size:
            self._fail(f"The loss became {losses[bad[0]]}", self.step + int(bad[0]))
        if not finite:
            self._fail("A parameter became infinite or nan", self.step + len(losses) - 1)

    def _fail(self, what: str, step: int) -> NoReturn:
        epoch = step // self.engine.steps_per_epoch + 1
        good = self.last.step
        checkpoint = None if good is None else f"that of step {good:,} in {self.last.folder}"
        raise NonFinite(report.not_finite(what, step, epoch, float(self.rates(step)), checkpoint))

    def _evaluation_is_due(self) -> bool:
        """Whether an epoch's steps are all made, but its evaluation isn't recorded."""
        at_end = self.step > 0 and self.step % self.engine.steps_per_epoch == 0
        return at_end and all(line["step"] != self.step for line in self.folder.tested())

    def _finish_epoch(self) -> None:
        """Evaluate, then record the epoch and save.

        The best checkpoint comes first, the metrics next and the last checkpoint at the end:
        wherever a crash falls, resuming from the last checkpoint makes again what is missing.
        """
        begun = time.perf_counter()
        loss, accuracy = self.engine.evaluate(self._tested)
        seconds = time.perf_counter() - begun
        if not math.isfinite(loss):
            self._fail(f"The test loss became {loss}", self.step - 1)
        train, test = self._epoch_lines(loss, accuracy, seconds)
        with self.display.busy("saving"):
            if accuracy > max((line["accuracy"] for line in self.folder.tested()), default=-1.0):
                self.best.save(self.engine.state, {})
            self.folder.append(train, test)
            self.totals = Totals()
            self._save()
        self.display.row(train, test)
        if time.perf_counter() - self.plotted > _SECONDS_BETWEEN_PLOTS:
            self._plot()

    def _epoch_lines(self, loss: float, accuracy: float, seconds: float) -> tuple[Metric, Metric]:
        common = {
            "epoch": self.step // self.engine.steps_per_epoch,
            "step": self.step,
            "lr": float(self.rates(self.step - 1)),
        }
        test = {
            "loss": loss,
            "accuracy": accuracy,
            "images_per_second": self.engine.tests / seconds,
            "seconds": seconds,
        }
        train = self.totals.metrics(self.config.batch_size)
        return {"kind": "train", **common, **train}, {"kind": "test", **common, **test}

    def _tested(self, done: int, total: int) -> None:
        self.display.testing(done, total)
        self.signals.check()

    def _save(self) -> None:
        self.last.save(self.engine.state, dataclasses.asdict(self.totals))

    def _plot(self) -> None:
        title = f"{self.config.arch} on {self.config.dataset}"
        with self.display.busy("drawing the curves"):
            plots.curves(self.folder.metrics, title, self.folder.curves)
        self.plotted = time.perf_counter()
