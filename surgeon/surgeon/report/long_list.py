"""Lists too long for a table that looks at every cell twice: ten thousand rows in a moment."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from surgeon.report.shared_path import shared_path, without_path

_GAP = "  "


def print_rows(console: Console, titles: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print rows in columns, long cells without what all have in common and their middle, so that all fit on a line.

    Args:
        console: Where.
        titles: The heads of the columns.
        rows: One text for each column; characters that do not print are spelt out.
    """
    spelt = [[_spelt_out(cell) for cell in row] for row in rows]
    widths = [max([len(title), *(len(row[i]) for row in spelt)]) for i, title in enumerate(titles)]
    room = max(console.width - len(_GAP) * (len(titles) - 1), 8 * len(titles))
    # The widest columns give way, together, until all fit.
    limit = max(widths)
    while sum(min(width, limit) for width in widths) > room:
        limit -= 1
    for i, width in enumerate(widths):
        if width > limit:
            path = shared_path(row[i] for row in spelt)
            for row in spelt:
                row[i] = row[i] if len(row[i]) <= limit else without_path(row[i], path)
    widths = [min(width, limit) for width in widths]
    lines = [_line(titles, widths), *(_line(row, widths) for row in spelt)]
    console.out("\n".join(lines), highlight=False)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    fitted = (cell if len(cell) <= width else _cut(cell, width) for cell, width in zip(cells, widths, strict=True))
    return _GAP.join(cell.ljust(width) for cell, width in zip(fitted, widths, strict=True)).rstrip()


def _cut(cell: str, width: int) -> str:
    start = (width - 3) // 3
    return f"{cell[:start]}...{cell[len(cell) - (width - 3 - start) :]}"


def _spelt_out(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)
