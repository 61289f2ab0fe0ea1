"""Output of `igcv models --pretrained`."""

from collections.abc import Iterable
from typing import Any

from rich.table import Table

from igcv.commands.printing.lines import print_line, print_rows


def print_weights(rows: Iterable[Any]) -> None:
    """Print weights with accuracy in percent, size and location, then notes with accuracy sources and licenses."""
    table = Table(box=None, header_style="bold")
    table.add_column("weights", no_wrap=True)
    for column in ("top-1", "top-5", "MB"):
        table.add_column(column, justify="right", no_wrap=True)
    table.add_column("where", no_wrap=True)
    table.add_column("see", justify="right")
    notes: dict[str, int] = {}
    for row in rows:
        note = notes.setdefault(f"accuracy: {row.source}; license: {row.license}", len(notes) + 1)
        accuracy = ("" if value is None else f"{value:.2f}" for value in (row.top1, row.top5))
        place = row.place if row.place in ("igcv", "cache") else "to download"
        table.add_row(row.name, *accuracy, f"{row.megabytes:.1f}", place, str(note))
    print_rows(table)
    for text, note in notes.items():
        print_line(f"{note:2} {text}")
