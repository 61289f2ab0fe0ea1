"""Output of `igcv export`, `igcv bench latency` and `igcv web`."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from igcv.commands.printing.lines import print_line, print_rows
from igcv.terminal import counted


def print_export(figures: Mapping[str, Any]) -> None:
    """Print the exported file, its comparison with the trained network, its block forms, and its int8 results."""
    print_line(f"{figures['file']}: {figures['bytes'] / 2**20:,.2f} MiB")
    print_line(
        f"comparison with the trained network on {counted(figures['images'], 'image')} of {figures['on']}: "
        f"largest difference {figures['error']:.1e} of the largest logit, "
        f"same class for {100 * figures['agreement']:.1f} % of the images"
    )
    counts = Counter(figures["forms"].values()).most_common()
    padded = f"; groups padded to multiples of {width}" if (width := figures["vector_width"]) > 1 else ""
    forms = ", ".join(f"{form} {counted(count, 'block')}" for form, count in counts)
    print_line(f"forms: {forms}{padded}")
    if "int8" in figures:
        print_int8(figures["int8"])


def print_int8(figures: Mapping[str, Any]) -> None:
    """Print size, accuracy and time of int8 compared with float32."""
    table = Table("", "float32", "int8", "", box=None, header_style="bold")
    size, top1, time = figures["bytes"], figures["top1"], figures["median_ms"]
    table.add_row(
        "size",
        *(f"{size[kind] / 2**20:,.2f} MiB" for kind in size),
        f"{100 * size['int8'] / size['float32']:.0f} %",
    )
    if top1["int8"] is not None:
        lost = f"{top1['int8'] - top1['float32']:+.2f} points on {counted(figures['images'], 'image')}"
        table.add_row("top-1", *(f"{top1[kind]:.2f} %" for kind in top1), lost)
    ratio = figures["time_ratio"]
    spread = f"{ratio['median']:.2f} times ({ratio['low']:.2f} to {ratio['high']:.2f})"
    table.add_row("time", *(f"{time[kind]:.2f} ms" for kind in time), spread)
    if figures["agreement"] is not None:
        table.add_row("same class", "", "", f"{100 * figures['agreement']:.1f} % of validation images")
    print_rows(table)


def print_latency(results: Sequence[Any], ratios: Sequence[float], batch: int, threads: int) -> None:
    """Print latencies, their ratios to the first network, and the memory added by opening and running each network."""
    title = f"batch {batch}, {counted(threads, 'thread')}"
    table = Table("network", title=title, box=None, header_style="bold", title_justify="left")
    for column in ("median ms (min to max)", "ratio", "images/s", "MiB", "matmul throughput"):
        table.add_column(column, justify="right")
    for result, ratio in zip(results, ratios, strict=True):
        table.add_row(
            result.label,
            f"{result.median_ms:.2f} ({min(result.times_ms):.2f} to {max(result.times_ms):.2f})",
            f"{ratio:.2f}",
            f"{result.images_per_s:,.1f}",
            f"{result.memory_mib:,.0f}",
            "" if result.share is None else f"{100 * result.share:.0f} %",
        )
    print_rows(table)


def print_page(page: Any) -> None:
    """Print the contents of a page, and why it has no int8 network or no examples."""
    networks = ", ".join(f"{n['name']} {n['bytes'] / 1e6:,.2f} MB" for n in page.networks)
    print_line(f"{page.folder}: static web page; {networks}")
    if page.no_int8:
        print_line(f"no int8: {page.no_int8}")
    if page.kept_out:
        print_line(
            f"no examples: the images of {page.examples_of} may be private. --examples adds {page.kept_out} images"
        )
    if page.examples:
        print_line(
            f"{page.examples} validation images of {page.examples_of} are in {page.folder / 'examples'}"
        )
