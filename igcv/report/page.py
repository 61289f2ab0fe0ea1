"""Runs as one page that opens from the disk: curves, what is mistaken for what, costs, settings, machine."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from importlib.resources import files
from statistics import median
from typing import Any, NamedTuple

from jinja2 import Environment, PackageLoader, StrictUndefined
from plotly.offline import get_plotlyjs

from igcv.report.figures import (
    MOST_CLASSES,
    PANELS,
    class_accuracy,
    confusion,
    curves,
    images_of,
    run_colours,
    stage_costs,
)

PAIRS = 12  # confusions that are listed
COLUMNS = {  # of the metrics log, as a table of every epoch shows them
    "epoch": "epoch",
    "input_size": "pixels",
    "train_loss": "training loss",
    "val_loss": "validation loss",
    "val_top1": "top-1 %",
    "val_top5": "top-5 %",
    "lr": "learning rate",
    "images_per_s": "images/s",
    "train_time_s": "training s",
    "data_wait_s": "waiting s",
    "peak_memory_mib": "peak MiB",
}


class StageCost(NamedTuple):
    """A part of a network and what it costs for one image."""

    name: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """A run as its files tell it.

    Attributes:
        name: what to call it, its folder.
        recipe: its settings, key -> value as text.
        defaults: what each setting is if nothing is said.
        history: the metrics log, a row for each epoch (see igcv.training.run).
        stages: the parts of the network; empty if there are no weights yet.
        evaluation: of the best epoch: "epoch", "classes", "confusion" as [class, guess, images] and "mistakes";
            None without validation images.
        environment: machine and versions; empty before the run's end.
    """

    name: str
    recipe: Mapping[str, str]
    defaults: Mapping[str, str]
    history: Sequence[Mapping[str, Any]]
    stages: Sequence[StageCost]
    evaluation: Mapping[str, Any] | None
    environment: Mapping[str, str]

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The epoch of the highest top-1 accuracy, of several the last: its weights are kept.

        With progressive resizing it is an epoch of the newest image size: accuracies of two sizes do not compare.
        """
        size = self.history[-1].get("input_size")
        measured = [row for row in self.history if "val_top1" in row and row.get("input_size") == size]
        return max(measured, key=lambda row: (row["val_top1"], row["epoch"]), default=None)

    @property
    def costs(self) -> tuple[int, int]:
        """Parameters and multiply-adds of the network."""
        return sum(s.parameters for s in self.stages), sum(s.multiply_adds for s in self.stages)

    @property
    def images_per_s(self) -> float:
        """While training, the median over the epochs."""
        return median(row["images_per_s"] for row in self.history)

    @property
    def time_s(self) -> float:
        return sum(row["epoch_time_s"] for row in self.history)

    @cached_property
    def counts(self) -> dict[tuple[int, int], int]:
        """Images of each class and most probable class."""
        return {(label, guess): images for label, guess, images in (self.evaluation or {})["confusion"]}

    @property
    def pairs(self) -> list[tuple[str, str, int, int]]:
        """The most frequent confusions: class, guess, images, and images of the class."""
        names, total = (self.evaluation or {})["classes"], images_of(self.counts)
        wrong = [(n, label, guess) for (label, guess), n in self.counts.items() if label != guess]
        most = sorted(wrong, key=lambda pair: (-pair[0], *pair[1:]))[:PAIRS]
        return [(names[label], names[guess], n, total[label]) for n, label, guess in most]

    @property
    def changed(self) -> set[str]:
        """The settings that are not their defaults."""
        return {key for key, value in self.recipe.items() if value != self.defaults.get(key, "")}


def report_page(runs: Sequence[RunReport]) -> str:
    """The page of one or more runs, as HTML that needs nothing else."""
    environment = Environment(
        loader=PackageLoader("igcv.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"duration": duration, "count": count}
    histories = {run.name: run.history for run in runs}
    keys = {key: None for run in runs for key in run.recipe}
    return environment.get_template("page.html").render(
        runs=runs,
        title=f"{len(runs)} runs"
        if len(runs) > 1
        else f"{runs[0].recipe['model']} on {runs[0].recipe['data']}",
        colours=run_colours(len(runs)),
        panels=[(panel.title, panel.unit, curves(panel, histories)) for panel in PANELS],
        differing=[key for key in keys if len({run.recipe.get(key, "") for run in runs}) > 1],
        columns=columns_of([row for run in runs for row in run.history]),
        most_classes=MOST_CLASSES,
        confusion=confusion,
        class_accuracy=class_accuracy,
        stage_costs=lambda stages: stage_costs({s.name: (s.parameters, s.multiply_adds) for s in stages}),
        plotly=get_plotlyjs(),
        **{kind: files("igcv.report").joinpath(f"page.{kind}").read_text() for kind in ("css", "js")},
    )


def columns_of(rows: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Return the columns of the table of epochs, without those that no row has."""
    found = {key for row in rows for key in row}
    return {key: title for key, title in COLUMNS.items() if key in found}


def duration(seconds: float) -> str:
    """A time for people: 48 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"


def count(number: float) -> str:
    """A large number for people: 950, 12.3 k, 3.49 M, 1.2 G."""
    for size, unit in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= size:
            return f"{number / size:.3g} {unit}"
    return f"{number:.3g}"
