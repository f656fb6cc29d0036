"""Tables for people, in plain text, so that they can be piped and grepped; the exact values are behind --json."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import click


def print_table(columns: Sequence[str], rows: Sequence[Sequence[str]], *, right: Collection[str] = ()) -> None:
    """Print rows under their column names; the columns in `right` are aligned right, as numbers are."""
    lines = [list(columns), *map(list, rows)]
    widths = [max(len(line[place]) for line in lines) for place in range(len(columns))]
    for line in lines:
        cells = [
            cell.rjust(width) if column in right else cell.ljust(width)
            for column, cell, width in zip(columns, line, widths, strict=True)
        ]
        click.echo("  ".join(cells).rstrip())
