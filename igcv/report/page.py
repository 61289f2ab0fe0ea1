"""HTML report of one or more runs, in one file."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from igcv.report.figures import (
    MOST_CLASSES,
    PANELS,
    class_accuracy,
    confusion,
    curves,
    run_colors,
    stage_costs,
)
from igcv.report.run import RunReport, duration

COLUMNS = {  # keys of the metrics log, with the column titles of the table of epochs
    "epoch": "epoch",
    "input_size": "pixels",
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_top1": "top-1 %",
    "val_top5": "top-5 %",
    "val_balanced": "balanced %",
    "lr": "learning rate",
    "images_per_s": "images/s",
    "train_time_s": "training s",
    "data_wait_s": "data wait s",
    "peak_memory_mib": "peak MiB",
}


def report_page(runs: Sequence[RunReport]) -> str:
    """Return the page of one or more runs as self-contained HTML."""
    environment = templates()
    environment.filters |= {"duration": duration, "count": count}
    histories = {run.name: run.history for run in runs}
    keys = {key: None for run in runs for key in run.recipe}
    return environment.get_template("page.html").render(
        runs=runs,
        title=f"{len(runs)} runs"
        if len(runs) > 1
        else f"{runs[0].recipe['model']} on {runs[0].recipe['data']}",
        colors=run_colors(len(runs)),
        panels=[(panel.title, panel.unit, curves(panel, histories)) for panel in PANELS],
        differing=[key for key in keys if len({run.recipe.get(key, "") for run in runs}) > 1],
        columns=columns_of([row for run in runs for row in run.history]),
        most_classes=MOST_CLASSES,
        confusion=confusion,
        class_accuracy=class_accuracy,
        stage_costs=lambda stages: stage_costs({s.name: (s.parameters, s.multiply_adds) for s in stages}),
        plotly=get_plotlyjs(),
        **{kind: files("igcv.report").joinpath(f"page.{kind}").read_text("utf-8") for kind in ("css", "js")},
    )


def templates() -> Environment:
    """Return the environment of the HTML templates in this folder."""
    return Environment(
        loader=PackageLoader("igcv.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def page_bytes(page: str) -> bytes:
    """Encode a page as UTF-8; escape undecodable bytes in names."""
    return page.encode("utf-8", "backslashreplace")


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns of the table of epochs that occur in at least one row."""
    found = {key for row in rows for key in row}
    return {key: title for key, title in COLUMNS.items() if key in found}


def count(number: float) -> str:
    """Return a large number in short form: 950, 12.3 k, 3.49 M, 1.2 G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
