"""Output of `igcv predict` and `igcv evaluate`."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from igcv.commands.printing.lines import print_line, print_rows
from igcv.terminal import counted


def print_prediction(entry: Any) -> None:
    """Print the most probable classes of an image."""
    print_line(f"{entry.file}: unknown" if entry.is_unknown else entry.file, bold=True)
    for guess in entry.predictions:
        print_line(f"  {100 * guess.probability:6.2f} %  {guess.name}")


def print_table(found: Sequence[Any], file: Path) -> None:
    """Print the counts of a table of predictions, and its correct predictions if true classes are known."""
    counts = [f"{counted(len(found), 'image')}"]
    if unknown := sum(entry.is_unknown for entry in found):
        counts.append(f"{unknown:,} unknown")
    if bad := sum(bool(entry.error) for entry in found):
        counts.append(f"{bad:,} unreadable")
    print_line(f"{file}: {', '.join(counts)}")
    known = [entry for entry in found if entry.true_class and not entry.error]
    if known:
        right = sum(entry.name == entry.true_class for entry in known)
        print_line(f"{right:,} of {len(known):,} images in class folders are classified correctly")


def print_copied(copied: Mapping[str, int], folder: Path) -> None:
    """Print the number of images copied into each folder."""
    parts = ", ".join(f"{name} {count:,}" for name, count in sorted(copied.items()))
    print_line(f"{folder}: {counted(sum(copied.values()), 'image')} copied ({parts or 'none'})")


def print_evaluation(figures: dict[str, Any], note: str = "") -> None:
    """Print an evaluation with a table of its classes, lowest recall first, and an optional note."""
    where = f"{figures['weights']} on {figures['data']}: {counted(figures['images'], 'image')}"
    where += f" of the part '{figures['part']}'" if "part" in figures else ""
    print_line(where)
    top5 = f"top-5 {figures['top5']:.2f} %   " if "top5" in figures else ""
    print_line(
        f"top-1 {figures['top1']:.2f} %   {top5}balanced accuracy {figures['balanced']:.2f} %   "
        f"loss {figures['loss']:.4f}   {figures['precision']}",
        bold=True,
    )
    if note:
        print_line(note)
    table = Table("class", box=None, header_style="bold")
    for column in ("images", "recall", "precision", "F1"):
        table.add_column(column, justify="right")
    known = [(scores["recall"], name) for name, scores in figures["classes"].items() if scores["images"]]
    shown = sorted(known)[:20]
    for _, name in shown:
        scores = figures["classes"][name]
        shares = (
            "" if scores[key] is None else f"{scores[key]:.2f} %" for key in ("recall", "precision", "f1")
        )
        table.add_row(name, f"{scores['images']:,}", *shares)
    print_rows(table)
    if len(known) > len(shown):
        print_line(f"({len(shown)} of {len(known)} classes, lowest recall first; --json prints all)")
