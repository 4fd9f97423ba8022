"""A comparison as a table for the terminal."""

import dataclasses
from collections.abc import Iterator, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from benchmarks.convolutions import ALL
from benchmarks.records import BEST_TORCH, PLAIN_FLAX, Ratio, Record
from benchmarks.run import Result
from benchmarks.task import WORKS
from benchmarks.traffic import Traffic

BUSY = 0.5  # load a core from which a measurement is disturbed

_EXPLANATION = """\
Medians over interleaved runs; {columns}x: ratio to PyTorch's best mode and to plain Flax, above 1
is {better}."""
_COLUMNS_EXPLAINED = """\
spread: between their quartiles; peak: of the matrix product's rate; MiB: peak memory beyond the
imports; """


def print_traffic(console: Console, title: str, traffic: Traffic) -> None:
    """Print what a training step is made of."""
    console.print(title, style="italic")
    table = Table(box=box.SIMPLE_HEAD if console.is_terminal else box.ASCII2, pad_edge=False)
    table.add_column("kernels")
    for column in ("number", "MB moved"):
        table.add_column(column, justify="right")
    for kind, number in sorted(traffic.kernels.items(), key=lambda item: -traffic.moved[item[0]]):
        table.add_row(kind, str(number), f"{traffic.moved[kind] / 1e6:,.0f}")
    number, moved = sum(traffic.kernels.values()), sum(traffic.moved.values())
    table.add_row("all", str(number), f"{moved / 1e6:,.0f}")
    console.print(table)
    dtypes = ", ".join(f"{n} in {dtype}" for dtype, n in traffic.convolution_dtypes.items())
    console.print(
        f"{moved / traffic.least:.1f} times the least, {traffic.least / 1e6:,.0f} MB; "
        f"convolutions: {dtypes}",
        soft_wrap=True,
    )


def print_result(console: Console, result: Result) -> None:
    """Print a table for every group, what was skipped, and what the machine can do."""
    if result.records and result.records[0].work == "convolutions":
        _print_convolutions(console, result)
    else:
        for records in grouped(result.records):
            console.print(title(records[0]), style="italic")
            console.print(_table(records, result))
    for each in result.skipped:
        console.print(f"{each['side']} was left out: {each['reason']}", style="yellow")
    if not result.records:
        return
    work = WORKS[result.records[0].work]
    if work.unit != "call":
        better = "less memory" if work.by_memory else "faster"
        columns = "" if work.unit == "pass" else _COLUMNS_EXPLAINED
        text = _EXPLANATION.format(better=better, columns=columns).replace("\n", " ")
        console.print(text, style="dim", soft_wrap=True)
    for line in machine_lines(result):
        console.print(line, style="dim", soft_wrap=True)
    load = result.head["load_average"]
    if load is not None and load > BUSY * result.head["cores"]:
        console.print(
            f"The machine was busy with something else (load average {load:.1f}): these numbers "
            "say little.",
            style="yellow",
            soft_wrap=True,
        )


def grouped(records: Sequence[Record]) -> list[list[Record]]:
    """Records of the same group together, in the order of the first of each."""
    groups: dict[tuple[object, ...], list[Record]] = {}
    for record in records:
        groups.setdefault(record.group, []).append(record)
    return list(groups.values())


def title(record: Record) -> str:
    """What a group of records is about."""
    work = WORKS[record.work]
    parts = [record.work, record.variant, record.arch]
    if work.unit in ("step", "batch", "epoch", "pass"):
        parts += [f"batch {record.batch}", record.input]
    return ", ".join([*filter(None, parts), record.dtype])


def machine_lines(result: Result) -> Iterator[str]:
    """The machine, and its limits where they were measured."""
    device = result.head["device"].get("name", "unknown device")
    yield f"{device}, {result.head['cores']} cores; {result.head['date']}"
    limits = []
    for record in result.limits:
        if record.gflops:
            limits.append(f"{record.dtype} matrix product {record.gflops:,.0f} GFLOP/s")
        if record.gigabytes_per_second:
            limits.append(f"copy {record.gigabytes_per_second:,.1f} GB/s")
        limits[-1] += f" ({record.side})"
    if limits:
        yield "this machine's best: " + ", ".join(limits)


def _print_convolutions(console: Console, result: Result) -> None:
    """A table for every network, with a row for every pass of every layer."""
    networks: dict[str, list[list[Record]]] = {}
    for records in grouped(result.records):
        whole = dataclasses.replace(records[0], variant="")
        networks.setdefault(title(whole), []).append(records)
    for name, rows in networks.items():
        console.print(f"{name}: GFLOP/s; of sums over a step milliseconds", style="italic")
        sides = [record.side for record in rows[0]]
        table = _empty_table()
        table.add_column("convolution, its passes")
        for column in (*map(_short_side, sides), *_REFERENCES):
            table.add_column(column, justify="right")
        before = ""
        for records in rows:
            layer, _, of_layer = records[0].variant.partition(": ")
            if layer != before:
                table.add_row(layer)
            before, summed = layer, layer == ALL
            numbers = [
                f"{1e3 * each.median_s:,.4g}" if summed else f"{each.gflops or 0:,.3g}"
                for each in records
            ]
            ours = next((each for each in records if each.side == "ours"), None)
            compared = [
                _ratio(to, ours, result.ratios) if ours else "" for to in _REFERENCES.values()
            ]
            style = "bold" if summed else None
            table.add_row(f"  {of_layer or 'sum'}", *numbers, *compared, style=style)
        console.print(table)


def _empty_table() -> Table:
    return Table(header_style="bold", box=box.SIMPLE_HEAD, padding=0, pad_edge=False)


def _short_side(side: str) -> str:
    """In two lines where it is long."""
    return side.replace("torch-", "torch\n", 1).replace("channels-last", "NHWC")


def _table(records: Sequence[Record], result: Result) -> Table:
    first = records[0]
    shown = [column for column in _COLUMNS if any(_cell(column, r, result) for r in records)]
    table = _empty_table()
    table.add_column("side", no_wrap=True)
    for column in shown:
        table.add_column(
            f"s/{WORKS[first.work].unit}" if column == "time" else column, justify="right"
        )
    for record in records:
        cells = [_cell(column, record, result) or "-" for column in shown]
        table.add_row(record.side, *cells, style="bold" if record.side == "ours" else None)
    return table


# Short enough for a terminal of 80 columns.
_REFERENCES = {"x PyTorch": BEST_TORCH, "x Flax": PLAIN_FLAX}
_COLUMNS = (
    "time",
    "spread",
    "imports",
    "images/s",
    "GFLOP/s",
    "peak",
    "GB/s",
    "MiB",
    *_REFERENCES,
)


def _cell(column: str, record: Record, result: Result) -> str:
    """A cell's text; "" where there is nothing to say."""
    match column:
        case "time":
            return f"{record.median_s:.3g}" if record.median_s < 100 else f"{record.median_s:.0f}"
        case "spread":
            return f"{100 * record.spread:.0f} %" if len(record.runs) > 1 else ""
        case "imports":
            return f"{record.imports_s:.2f} s" if record.work == "compile" else ""
        case "images/s":
            return f"{record.images_per_second:,.0f}" if record.images_per_second else ""
        case "GFLOP/s":
            return f"{record.gflops:,.3g}" if record.gflops else ""
        case "peak":
            peak = max((limit.gflops or 0 for limit in result.limits), default=0)
            return f"{100 * record.gflops / peak:.0f} %" if record.gflops and peak else ""
        case "GB/s":
            return f"{record.gigabytes_per_second:.1f}" if record.gigabytes_per_second else ""
        case "MiB":
            return f"{record.peak_bytes / 2**20:,.0f}" if record.work != "roofline" else ""
        case _:
            return _ratio(_REFERENCES[column], record, result.ratios)


def _ratio(to: str, record: Record, ratios: Sequence[Ratio]) -> str:
    key = (*record.group, record.side, to)
    found = [each.ratio for each in ratios if each.key == key]
    return f"{found[0]:.2f}x" if found else ""
