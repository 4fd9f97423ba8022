"""A comparison as a horizontal bar chart."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from benchmarks.convolutions import ALL
from benchmarks.records import Record
from benchmarks.run import Result
from benchmarks.table import grouped, machine_lines, title
from benchmarks.task import WORKS

COLOURS = {
    "ours": "#1b1b3a",
    "flax": "#8da0cb",
    "torch-eager": "#f4b183",
    "torch-channels-last": "#d95f02",
    "torch-compile": "#8c3b00",
}
OTHER = "#9a9a9a"


def draw(result: Result, file: Path) -> None:
    """Draw a panel for every group of records, a bar for every side, into a PNG file.

    A bar is the median, a whisker goes from the best to the worst run, and the text says the
    number and how many times as good as PyTorch's best mode it is. Of convolutions only the sums
    over a step are drawn.

    Args:
        result: with one record or more.
        file: is replaced only once the new picture is complete.
    """
    groups = [group for group in grouped(result.records) if _is_drawn(group[0])]
    bars = sum(map(len, groups))
    figure = Figure(figsize=(9, 0.9 * len(groups) + 0.36 * bars + 0.8), dpi=150)
    figure.set_layout_engine("constrained", h_pad=0.08)
    heights = [len(group) + 0.5 for group in groups]
    panels = figure.subplots(len(groups), 1, squeeze=False, height_ratios=heights)[:, 0]
    for axes, group in zip(panels, groups, strict=True):
        _draw_group(axes, group, result)
    figure.text(0.01, -0.01, "\n".join(machine_lines(result)), fontsize=7, color="0.4", va="top")
    temporary = file.with_name(f".{file.name}")
    figure.savefig(temporary, format="png", bbox_inches="tight", pad_inches=0.15)
    temporary.replace(file)


def _is_drawn(record: Record) -> bool:
    return record.work != "convolutions" or record.variant.startswith(ALL)


def _draw_group(axes: Axes, records: Sequence[Record], result: Result) -> None:
    unit, _ = _quantity(records[0])
    values = [_values(record) for record in records]
    for row, (record, (median, low, high)) in enumerate(zip(records, values, strict=True)):
        axes.barh(row, median, height=0.7, color=COLOURS.get(record.side, OTHER))
        if high > low:
            axes.plot([low, high], [row, row], color="0.55", linewidth=1.2)
        axes.annotate(
            _label(record, median, result),
            (max(median, high), row),
            xytext=(5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            fontweight="bold" if record.side == "ours" else "normal",
        )
    axes.set_yticks(range(len(records)), [record.side for record in records], fontsize=9)
    axes.invert_yaxis()
    # A character of a label is so wide, as a share of the panel.
    ends = [
        high / (1 - 0.0095 * len(_label(record, median, result)) - 0.02)
        for record, (median, _, high) in zip(records, values, strict=True)
    ]
    axes.set_xlim(0, max(ends))
    axes.set_title(title(records[0]), fontsize=10, loc="left")
    axes.set_xlabel(unit, fontsize=8)
    axes.tick_params(axis="x", labelsize=8)
    axes.tick_params(axis="y", length=0)
    axes.grid(axis="x", alpha=0.25)
    axes.set_axisbelow(True)
    axes.spines[["top", "right", "left"]].set_visible(False)


def _quantity(record: Record) -> tuple[str, Any]:
    """What a panel's axis shows, and the function from a run's seconds to it."""
    if WORKS[record.work].by_memory:
        return "peak memory in MiB (less is better)", None
    if record.images_per_second:
        images = record.images_per_second * record.median_s
        return "images per second (more is better)", lambda seconds: images / seconds
    if record.gflops:
        operations = record.gflops * record.median_s
        return "GFLOP/s (more is better)", lambda seconds: operations / seconds
    if record.gigabytes_per_second:
        moved = record.gigabytes_per_second * record.median_s
        return "GB/s read and written (more is better)", lambda seconds: moved / seconds
    return "seconds (less is better)", lambda seconds: seconds


def _values(record: Record) -> tuple[float, float, float]:
    """Median, least and greatest of what the axis shows."""
    _, convert = _quantity(record)
    if convert is None:
        return (record.peak_bytes / 2**20,) * 3
    ends = sorted(convert(seconds) for seconds in (record.min_s, max(record.runs)))
    return convert(record.median_s), ends[0], ends[1]


def _label(record: Record, median: float, result: Result) -> str:
    number = f"{median:,.0f}" if median >= 100 else f"{median:.3g}"
    parts = [
        f"{each.ratio:.2f}x {each.to}"
        for each in result.ratios
        if record.side == "ours" and each.key[:-1] == (*record.group, record.side)
    ]
    return "   ".join([number, ", ".join(parts)]).strip()
