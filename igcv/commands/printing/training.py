"""Output of `igcv train`, `igcv check` and `igcv bench data`."""

from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.table import Table

from igcv.commands.printing.lines import console, print_line
from igcv.report.run import duration
from igcv.terminal import counted, quoted


def print_check(checked: Any) -> None:
    """Print the contents of a data set, the settings that training would choose, and the problems to fix."""
    from igcv.training.auto import in_words  # torch, which this import loads, is loaded by the check already

    counts = checked.classes.values()
    parts = [part for part in ("train", "val", "test") if any(part in found for found in counts)]
    table = Table("class", box=None, header_style="bold")
    for part in parts:
        table.add_column(part, justify="right")
    for name, found in checked.classes.items():
        table.add_row(name, *(f"{found.get(part, 0):,}" for part in parts))
    if len(checked.classes) > 1:
        table.add_row(
            "total", *(f"{sum(found.get(part, 0) for found in counts):,}" for part in parts), style="bold"
        )
    console.print(table)
    low, middle, high = checked.sizes
    modes = ", ".join(f"{mode} {images:,}" for mode, images in checked.modes.items())
    print_line(
        f"shorter side: {low} to {high} pixels, median {middle:g}; color modes: {modes or 'none readable'}"
    )
    for line in checked.notes:
        print_line(line)
    if checked.choices:
        print_line("settings that igcv train --data would choose:")
        for line in in_words(checked.choices):
            print_line(line)
        print_line(
            f"expected time: {duration(checked.epoch_s)} per epoch, {duration(checked.training_s)} in total"
        )
    for line in checked.problems:
        console.print("fix: ", style="bold red", end="")
        print_line(line)
    if not checked.problems:
        print_line("nothing to fix")


def print_settings(recipe: type[Any]) -> None:
    """Print all keys of the dataclass `recipe` with defaults and meanings."""
    table = Table("key", "default", "meaning", box=None, header_style="bold")
    for f in fields(recipe):
        choices = f" ({', '.join(f.metadata['choices'])})" if f.metadata["choices"] else ""
        default = "" if f.default in (None, "", ()) else str(f.default).lower()
        table.add_row(f.name, default, f.metadata["help"] + choices)
    console.print(table)


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """Print the results of a training run, its files, and the next commands."""
    table = Table(title="Run finished", box=None, show_header=False, title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    bad = summary["bad_images"]
    skipped = f", {counted(bad, 'unreadable image')} skipped (bad_images.jsonl)" if bad else ""
    rows = {
        "network": f"{summary['model']}, {summary['parameters']:,} parameters",
        "data": summary["data"] + skipped,
        "best top-1": best_text(summary),
        "epochs": f"{summary['epochs']} in {summary['time_s']:,.0f} s",
        "peak memory": f"{summary['peak_memory_mib']:,} MiB" if summary["peak_memory_mib"] else "unknown",
        **({"report": str(folder / "report.html")} if (folder / "report.html").is_file() else {}),
        "weights": str(folder / "best.safetensors"),
    }
    for name, value in rows.items():
        table.add_row(name, value)
    console.print(table)
    name = quoted(folder)
    following = [f"igcv evaluate {name}", f"igcv predict {name} IMAGE..."]
    if (folder / "tensorboard").is_dir():
        following.append(f"tensorboard --logdir {quoted(folder / 'tensorboard')}")
    print_line("")
    for i, command in enumerate(following):
        print_line(f"{'' if i else 'Next:':5}  {command}")


def best_text(summary: Mapping[str, Any]) -> str:
    """Return the accuracy of the best epoch as text; old logs have no balanced accuracy."""
    top1, balanced = summary["best_top1"], summary["best_balanced"]
    if top1 is None:
        return "no validation images"
    return f"{top1:.2f} %" + ("" if balanced is None else f", balanced accuracy {balanced:.2f} %")


def print_data_bench(figures: dict[str, Any]) -> None:
    """Print the data-loading speed and the share of the training time spent waiting for images."""
    kept = "cached in device memory" if figures["resident"] == "on" else f"augment {figures['augment']}"
    workers = (
        counted(figures["workers"], "data-loading worker")
        if figures["workers"]
        else "no data-loading workers"
    )
    print_line(
        f"{figures['data']}: {figures['images']:,} training images, {kept}; batches of {figures['batch_size']}, "
        f"{figures['input_size']} px; {workers}; {figures['machine']['device']}"
    )
    table = Table("", "median", "range", box=None, header_style="bold")
    rows = {
        "loading only, images/s": figures["loading"],
        **({"  per data-loading worker": _per_worker(figures)} if figures["workers"] else {}),
        f"training {figures['model']}, images/s": figures["training"],
    }
    for name, spread in rows.items():
        table.add_row(name, f"{spread['median']:,.1f}", f"{spread['low']:,.1f} to {spread['high']:,.1f}")
    median, low, high = (f"{100 * figures['waiting'][key]:.1f} %" for key in ("median", "low", "high"))
    table.add_row("  time waiting for images", median, f"{low} to {high}")
    table.add_row("peak memory, MiB", f"{figures['peak_memory_mib']:,}", "")
    table.add_row("estimated largest batch_size", f"{figures['largest_batch_size']:,}", "")
    console.print(table)


def _per_worker(figures: Mapping[str, Any]) -> dict[str, float]:
    """Return the data-loading speed divided by the number of data-loading workers."""
    return {key: value / figures["workers"] for key, value in figures["loading"].items()}
