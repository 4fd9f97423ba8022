"""Pictures of training runs, as PNG files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

DARK, ORANGE, GREEN, GREY = "#1b1b3a", "#d95f02", "#1b9e77", "#9a9a9a"


def milestones(steps: int) -> list[int]:
    """The steps that a table shows of ``steps``, counted from 1."""
    shown = {1, 2, 5, 10, 20, 50, 100, steps}
    return sorted(step for step in shown if step <= steps)


def draw_lockstep(
    flax_loss: np.ndarray, torch_loss: np.ndarray, errors: np.ndarray, title: str, file: Path
) -> None:
    """Both loss curves in one panel, the parameters' largest relative error in another.

    Args:
        flax_loss: (steps,), before each update.
        torch_loss: (steps,), of the twin.
        errors: (steps,), after each update.
        title: of the picture.
        file: is replaced only once the new picture is complete.
    """
    figure, losses, distances = _panels(title)
    steps = np.arange(1, len(flax_loss) + 1)
    losses.plot(steps, torch_loss, color=ORANGE, linewidth=3, label="PyTorch")
    losses.plot(steps, flax_loss, color=DARK, linewidth=1, label="Flax")
    losses.legend(frameon=False)
    distances.plot(steps, errors, color=DARK)
    distances.set_ylabel("largest difference of a parameter,\nrelative to its magnitude")
    _save(figure, file)


def draw_drift(records: Sequence[dict[str, Any]], title: str, file: Path) -> None:
    """The loss of every side in one panel, its distance from the oracle in another.

    Args:
        records: of ``parity.drift.drift_records``.
        title: of the picture.
        file: is replaced only once the new picture is complete.
    """
    figure, losses, distances = _panels(title)
    sides: dict[str, list[dict[str, Any]]] = {}
    for record in records:
        sides.setdefault(record["side"], []).append(record)
    colours = (GREY, DARK, ORANGE, GREEN)
    for (side, run), colour in zip(sides.items(), colours, strict=True):
        steps = [record["step"] for record in run]
        width = 4 if colour == GREY else 1.2
        losses.plot(
            steps, [each["loss"] for each in run], color=colour, linewidth=width, label=side
        )
        if any(each["distance"] for each in run):
            distances.plot(steps, [each["distance"] for each in run], color=colour, linewidth=1.5)
    losses.legend(frameon=False)
    distances.set_ylabel("distance of all parameters from\nPyTorch float64, relative")
    _save(figure, file)


def _panels(title: str) -> tuple[Figure, Axes, Axes]:
    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    losses, distances = figure.subplots(1, 2)
    losses.set(xlabel="step", ylabel="cross-entropy before the update")
    distances.set(xlabel="step", yscale="log")
    for axes in (losses, distances):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    figure.suptitle(title)
    return figure, losses, distances


def _save(figure: Figure, file: Path) -> None:
    temporary = file.with_name(f".{file.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(file)
