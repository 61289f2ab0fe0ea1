"""Output of `igcv models` and `igcv summary`."""

from collections.abc import Mapping
from typing import Any

from rich.table import Table
from rich.text import Text

from igcv.commands.printing.lines import print_line, print_rows


def print_catalog(sizes: Mapping[str, int], costs: Mapping[str, Any]) -> None:
    """Print networks with their input sizes and costs."""
    table = Table("network", "input", box=None, header_style="bold")
    for column in ("parameters", "multiply-adds"):
        table.add_column(column, justify="right")
    for name, cost in costs.items():
        row = (name, f"{sizes[name]} px", f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:,.1f} M")
        table.add_row(*row)
    print_rows(table)


def print_stages(title: str, rows: list[Any]) -> None:
    """Print the stages of a network as a table, with totals."""
    table = Table(title=title, box=None, header_style="bold", title_justify="left", padding=(0, 1, 0, 0))
    for column in ("stage", "blocks", "output", "parameters", "multiply-\nadds, M", "outputs,\nMiB"):
        table.add_column(Text(column), justify="left" if column == "stage" else "right", no_wrap=True)
    balanced = any(row.balance for row in rows)  # only IGCV2 has a balance condition
    for column in ("condition", "paths", *(["above\noptimum"] if balanced else [])):
        table.add_column(Text(column), no_wrap=True)
    for row in rows:
        paths = row.connectivity
        table.add_row(
            row.name,
            str(row.blocks or ""),
            f"{row.out_channels}x{row.output_size}x{row.output_size}",
            *costs(row.parameters, row.multiply_adds, row.activation_bytes),
            f"{row.condition}: {'holds' if paths.holds else 'NOT MET'}" if paths else "",
            path_range(paths) if paths else "",
            *([f"{100 * row.balance.excess:.0f} %" if row.balance else ""] if balanced else []),
        )
    keys = ("parameters", "multiply_adds", "activation_bytes")
    table.add_row(
        "total", "", "", *costs(*(sum(getattr(row, key) for row in rows) for key in keys)), style="bold"
    )
    print_rows(table)


def costs(parameters: int, multiply_adds: int, activation_bytes: int) -> tuple[str, str, str]:
    """Return the three costs as table cells: parameters, million multiply-adds, MiB."""
    return f"{parameters:,}", f"{multiply_adds / 1e6:,.1f}", f"{activation_bytes / 2**20:,.2f}"


def path_range(paths: Any) -> str:
    """Return the range of path counts, as a single number if all are equal."""
    return f"{paths.paths_min}" + (f" to {paths.paths_max}" if paths.paths_max != paths.paths_min else "")


def print_unmet(block: str, condition: str, paths: Any) -> None:
    """Print a block that does not meet its connectivity condition."""
    cut_off = f"; unconnected (input, output): {paths.cut_off}" if paths.cut_off else ""
    print_line(f"{block}: {condition} condition not met, {path_range(paths)} paths for each pair{cut_off}")
