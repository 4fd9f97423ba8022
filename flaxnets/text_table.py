"""Tables as plain text."""

from collections.abc import Iterator, Sequence


def aligned(
    header: Sequence[str], rows: Sequence[Sequence[str]], *, numeric: Sequence[int] = ()
) -> Iterator[str]:
    """The lines of a table: header, rule, rows.

    Args:
        header: a title for each column.
        rows: as many cells each.
        numeric: indices of the columns that are aligned on the right.
    """
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]

    def line(cells: Sequence[str]) -> str:
        padded = (
            cell.rjust(width) if index in numeric else cell.ljust(width)
            for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
        )
        return "  ".join(padded).rstrip()

    yield line(header)
    yield "  ".join("-" * width for width in widths)
    yield from map(line, rows)
