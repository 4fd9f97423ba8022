"""The picture of a run's curves."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

_COLOURS = {"train": "#8da0cb", "test": "#d95f02"}


def curves(metrics: Sequence[dict[str, Any]], title: str, file: Path) -> None:
    """Draw loss and accuracy by epoch, training and test, into a PNG file.

    Args:
        metrics: objects of metrics.jsonl; without any, nothing is drawn.
        title: of the picture.
        file: is replaced only once the new picture is complete.
    """
    if not metrics:
        return
    # Imported here: it takes about a second, which a run's start shouldn't wait for.
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

    figure = Figure(figsize=(10, 4), dpi=150, layout="constrained")
    panels = figure.subplots(1, 2)
    for axes, name in zip(panels, ("loss", "accuracy"), strict=True):
        scale = 100 if name == "accuracy" else 1
        for kind, colour in _COLOURS.items():
            lines = [line for line in metrics if line["kind"] == kind]
            axes.plot(
                [line["epoch"] for line in lines],
                [scale * line[name] for line in lines],
                color=colour,
                marker="o" if len(lines) <= 30 else None,
                markersize=4,
                label=_label(kind, name, lines),
            )
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.legend(frameon=False)
    panels[0].set_ylabel("cross-entropy")
    panels[1].set_ylabel("accuracy (%)")
    losses = [line["loss"] for line in metrics]
    if 0 < 3 * min(losses) < max(losses):
        panels[0].set_yscale("log")
        panels[0].yaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        panels[0].yaxis.set_major_formatter("{x:g}")
        panels[0].yaxis.set_minor_locator(NullLocator())
    figure.suptitle(title)
    temporary = file.with_name(f".{file.name}")
    figure.savefig(temporary, format="png")
    temporary.replace(file)


def _label(kind: str, name: str, lines: Sequence[dict[str, Any]]) -> str:
    if name == "loss" or not lines:
        return kind
    return f"{kind}, best {100 * max(line['accuracy'] for line in lines):.2f} %"
