"""What the commands about networks print."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from igcv.commands.printing.lines import console, print_line


def print_catalog(sizes: Mapping[str, int], costs: Mapping[str, Any]) -> None:
    """The networks with their costs."""
    table = Table("network", "input", box=None, header_style="bold")
    for column in ("parameters", "multiply-adds"):
        table.add_column(column, justify="right")
    for name, cost in costs.items():
        row = (name, f"{sizes[name]} px", f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:,.1f} M")
        table.add_row(*row)
    console.print(table)


def print_stages(title: str, rows: list[Any]) -> None:
    """The stages of a network as a table, with totals."""
    table = Table(title=title, box=None, header_style="bold", title_justify="left")
    for column in ("part", "blocks", "output", "parameters", "multiply-adds", "activations"):
        table.add_column(column, justify="left" if column == "part" else "right")
    for column in ("condition", "paths", "above optimum"):
        table.add_column(column)
    for row in rows:
        paths = row.connectivity
        table.add_row(
            row.name,
            str(row.blocks or ""),
            f"{row.out_channels} x {row.output_size} x {row.output_size}",
            *costs(row.parameters, row.multiply_adds, row.activation_bytes),
            f"{row.condition}: {'holds' if paths.holds else 'NOT MET'}" if paths else "",
            path_range(paths) if paths else "",
            f"{100 * row.balance.excess:.0f} %" if row.balance else "",
        )
    keys = ("parameters", "multiply_adds", "activation_bytes")
    table.add_row(
        "all", "", "", *costs(*(sum(getattr(row, key) for row in rows) for key in keys)), style="bold"
    )
    console.print(table)


def costs(parameters: int, multiply_adds: int, activation_bytes: int) -> tuple[str, str, str]:
    """The three costs as a table shows them."""
    return f"{parameters:,}", f"{multiply_adds / 1e6:,.1f} M", f"{activation_bytes / 2**20:,.2f} MiB"


def path_range(paths: Any) -> str:
    """Fewest and most paths, once where they are equal."""
    return f"{paths.paths_min}" + (f" to {paths.paths_max}" if paths.paths_max != paths.paths_min else "")


def print_unmet(block: str, condition: str, paths: Any) -> None:
    """A block whose channels are not connected as its condition demands."""
    cut_off = f"; cut off (input, output): {paths.cut_off}" if paths.cut_off else ""
    print_line(f"{block}: {condition} condition not met, {path_range(paths)} paths for each pair{cut_off}")
