"""What the commands print: tables and lines, from plain figures."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from igcv.report.run import duration

console = Console()


def print_line(text: str) -> None:
    """One line, as it is."""
    console.print(text, highlight=False, markup=False, soft_wrap=True)


def print_check(checked: Any) -> None:
    """What a data set holds, what is wrong with it, and what a training would do."""
    from igcv.training.auto import in_words  # loads torch, as the check has

    counts = checked.classes.values()
    parts = [part for part in ("train", "val", "test") if any(part in found for found in counts)]
    table = Table("class", box=None, header_style="bold")
    for part in parts:
        table.add_column(part, justify="right")
    for name, found in checked.classes.items():
        table.add_row(escape(name), *(f"{found.get(part, 0):,}" for part in parts))
    if len(checked.classes) > 1:
        table.add_row(
            "all", *(f"{sum(found.get(part, 0) for found in counts):,}" for part in parts), style="bold"
        )
    console.print(table)
    low, middle, high = checked.sizes
    modes = ", ".join(f"{mode} {images:,}" for mode, images in checked.modes.items())
    print_line(
        f"shorter side: {low} to {high} pixels, median {middle:g}; stored as {modes or 'nothing readable'}"
    )
    for line in checked.notes:
        print_line(line)
    if checked.choices:
        print_line("a training would choose (igcv train --data ...):")
        for line in in_words(checked.choices):
            print_line(line)
        print_line(
            f"expected time: {duration(checked.epoch_s)} an epoch, {duration(checked.training_s)} in all"
        )
    for line in checked.problems:
        console.print("fix: ", style="bold red", end="")
        print_line(line)
    if not checked.problems:
        print_line("nothing to fix")


def print_predictions(found: Iterable[Any]) -> None:
    """The most probable classes of images, or why they cannot be read."""
    for entry in found:
        heading = f"{entry.file}: unknown" if entry.is_unknown else entry.file
        console.print(heading, style="bold", highlight=False, markup=False, soft_wrap=True)
        if entry.error:
            print_line(f"  {entry.error}")
        for guess in entry.predictions:
            print_line(f"  {100 * guess.probability:6.2f} %  {guess.name}")


def print_table(found: Sequence[Any], file: Path) -> None:
    """What is in a table of predictions; how many are right where the classes are known."""
    counts = [f"{len(found):,} images"]
    if unknown := sum(entry.is_unknown for entry in found):
        counts.append(f"{unknown:,} unknown")
    if bad := sum(bool(entry.error) for entry in found):
        counts.append(f"{bad:,} unreadable")
    print_line(f"{file}: {', '.join(counts)}")
    known = [entry for entry in found if entry.true_class and not entry.error]
    if known:
        right = sum(entry.name == entry.true_class for entry in known)
        print_line(f"{right:,} of {len(known):,} images in a class folder are classified as that class")


def print_copied(copied: Mapping[str, int], folder: Path) -> None:
    """How many images were copied into which folder."""
    parts = ", ".join(f"{name} {count:,}" for name, count in sorted(copied.items()))
    print_line(f"{folder}: {sum(copied.values()):,} images copied ({parts or 'none'})")


@contextmanager
def progress_bar() -> Iterator[Callable[[int, int], None]]:
    """A bar on standard error while images are classified, in a terminal; it takes images done and images in all."""
    from rich.progress import MofNCompleteColumn, Progress, TimeRemainingColumn

    errors = Console(stderr=True)
    columns = (*Progress.get_default_columns()[:2], MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=errors, transient=True, disable=not errors.is_terminal) as bar:
        task = bar.add_task("images", total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def print_catalog(sizes: Mapping[str, int], costs: Mapping[str, Any]) -> None:
    """The networks with their costs."""
    table = Table("network", "input", box=None, header_style="bold")
    for column in ("parameters", "multiply-adds"):
        table.add_column(column, justify="right")
    for name, cost in costs.items():
        row = (name, f"{sizes[name]} px", f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:,.1f} M")
        table.add_row(*row)
    console.print(table)


def print_unmet(block: str, condition: str, paths: Any) -> None:
    """A block whose channels are not connected as its condition demands."""
    cut_off = f"; cut off (input, output): {paths.cut_off}" if paths.cut_off else ""
    print_line(f"{block}: {condition} condition not met, {path_range(paths)} paths for each pair{cut_off}")


def print_settings(recipe: type[Any]) -> None:
    """All keys of the dataclass `recipe` with default and meaning."""
    table = Table("key", "default", "meaning", box=None, header_style="bold")
    for f in fields(recipe):
        choices = f" ({', '.join(f.metadata['choices'])})" if f.metadata["choices"] else ""
        default = "" if f.default in (None, "", ()) else str(f.default)
        table.add_row(f.name, default, f.metadata["help"] + choices)
    console.print(table)


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """The end of a training run: figures, files, and what to type next."""
    table = Table(title="Run finished", box=None, show_header=False, title_justify="left", title_style="bold")
    table.add_column()
    table.add_column(overflow="fold")
    bad = summary["bad_images"]
    skipped = f", {bad:,} unreadable image{'s' * (bad > 1)} skipped (bad_images.jsonl)" if bad else ""
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
        table.add_row(name, escape(value))
    console.print(table)
    following = [f"igcv evaluate {folder}", f"igcv predict {folder} IMAGE..."]
    if (folder / "tensorboard").is_dir():
        following.append(f"tensorboard --logdir {folder}/tensorboard")
    print_line("\nNext:  " + "\n       ".join(following))


def best_text(summary: Mapping[str, Any]) -> str:
    """The accuracy of the best epoch; epochs before balanced accuracy was logged have none."""
    top1, balanced = summary["best_top1"], summary["best_balanced"]
    if top1 is None:
        return "no validation images"
    return f"{top1:.2f} %" + ("" if balanced is None else f", balanced accuracy {balanced:.2f} %")


def print_evaluation(figures: dict[str, Any], note: str = "") -> None:
    """An evaluation as a table, its classes from worst to best, with a note if there is one."""
    where = f"{figures['weights']} on {figures['data']}: {figures['images']:,} images"
    where += f" of the part '{figures['part']}'" if "part" in figures else ""
    console.print(where, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"top-1 [bold]{figures['top1']:.2f} %[/bold]   top-5 {figures['top5']:.2f} %   "
        f"balanced accuracy {figures['balanced']:.2f} %   loss {figures['loss']:.4f}",
        highlight=False,
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
        table.add_row(escape(name), f"{scores['images']:,}", *shares)
    console.print(table)
    if len(known) > len(shown):
        console.print(f"(the {len(shown)} hardest of {len(known)} classes; --json has all)", highlight=False)


def path_range(paths: Any) -> str:
    """Fewest and most paths, once where they are equal."""
    return f"{paths.paths_min}" + (f" to {paths.paths_max}" if paths.paths_max != paths.paths_min else "")


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


def print_data_bench(figures: dict[str, Any]) -> None:
    """How fast images come, and how much of a training step waits for them."""
    kept = "kept on the device" if figures["resident"] == "on" else f"augment {figures['augment']}"
    print_line(
        f"{figures['data']}: {figures['images']:,} training images, {kept}; batches of {figures['batch_size']}, "
        f"{figures['input_size']} px; {figures['workers']} loading processes; {figures['machine']['device']}"
    )
    table = Table("", "median", "range", box=None, header_style="bold")
    apart = {key: value / max(figures["workers"], 1) for key, value in figures["loading"].items()}
    for name, spread in (
        ("loading alone, images/s", figures["loading"]),
        ("  of each loading process", apart),
        (f"training {figures['model']}, images/s", figures["training"]),
    ):
        table.add_row(name, f"{spread['median']:,.1f}", f"{spread['low']:,.1f} to {spread['high']:,.1f}")
    median, low, high = (f"{100 * figures['waiting'][key]:.1f} %" for key in ("median", "low", "high"))
    table.add_row("  waiting for images", median, f"{low} to {high}")
    table.add_row("peak memory, MiB", f"{figures['peak_memory_mib']:,}", "")
    table.add_row("largest batch_size that fits, estimate", f"{figures['largest_batch_size']:,}", "")
    console.print(table)


def print_export(figures: Mapping[str, Any]) -> None:
    """What was written, how it compares, and how its blocks are computed."""
    print_line(f"{figures['file']}: {figures['bytes'] / 2**20:,.2f} MiB")
    print_line(
        f"compared with the trained network on {figures['images']} images of {figures['on']}: largest difference "
        f"{figures['error']:.1e} of the largest logit, same class for {100 * figures['agreement']:.1f} %"
    )
    counts = Counter(figures["forms"].values()).most_common()
    padded = f"; groups filled up to multiples of {width}" if (width := figures["vector_width"]) > 1 else ""
    print_line(f"forms: {', '.join(f'{form} {count} blocks' for form, count in counts)}{padded}")


def print_int8(figures: Mapping[str, Any]) -> None:
    """int8 beside float32."""
    table = Table("", "float32", "int8", "", box=None, header_style="bold")
    size, top1, time = figures["bytes"], figures["top1"], figures["median_ms"]
    table.add_row(
        "size",
        *(f"{size[kind] / 2**20:,.2f} MiB" for kind in size),
        f"{100 * size['int8'] / size['float32']:.0f} %",
    )
    if top1["int8"] is not None:
        lost = f"{top1['int8'] - top1['float32']:+.2f} points on {figures['images']:,} images"
        table.add_row("top-1", *(f"{top1[kind]:.2f} %" for kind in top1), lost)
    ratio = figures["time_ratio"]
    spread = f"{ratio['median']:.2f} times ({ratio['low']:.2f} to {ratio['high']:.2f})"
    table.add_row("time", *(f"{time[kind]:.2f} ms" for kind in time), spread)
    table.add_row("same class", "", "", f"{100 * figures['agreement']:.1f} % of images")
    console.print(table)


def print_latency(results: Sequence[Any], ratios: Sequence[float], batch: int, threads: int) -> None:
    """How long networks take, as ratios to the first one, and the memory that opening and running them adds."""
    title = f"batch {batch}, {threads} thread{'s' if threads > 1 else ''}"
    table = Table("network", title=title, box=None, header_style="bold", title_justify="left")
    for column in ("ms, range", "ratio", "images/s", "MiB", "matrix rate"):
        table.add_column(column, justify="right")
    for result, ratio in zip(results, ratios, strict=True):
        table.add_row(
            escape(result.label),
            f"{result.median_ms:.2f}, {min(result.times_ms):.2f} to {max(result.times_ms):.2f}",
            f"{ratio:.2f}",
            f"{result.images_per_s:,.1f}",
            f"{result.memory_mib:,.0f}",
            "" if result.share is None else f"{100 * result.share:.0f} %",
        )
    console.print(table)


def print_page(page: Any) -> None:
    """What is in a page, and what is not and why."""
    networks = ", ".join(f"{n['name']} {n['bytes'] / 1e6:,.2f} MB" for n in page.networks)
    print_line(f"{page.folder}: a page for any web server; {networks}")
    if page.no_int8:
        print_line(f"no int8: {page.no_int8}")
    if page.kept_out:
        print_line(
            f"no examples, as the images of {page.examples_of} may be your own; --examples adds {page.kept_out}"
        )
    if page.examples:
        print_line(
            f"{page.examples} validation images of {page.examples_of} are in {page.folder / 'examples'}"
        )
