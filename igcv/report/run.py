"""Data of a run for its report."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

PAIRS = 12  # listed confusions
# Keys of the metrics log by the recipe's best_by, with the sign that makes higher scores better.
SCORES = {"top1": ("val_top1", 1), "balanced": ("val_balanced", 1), "loss": ("val_loss", -1)}


class StageCost(NamedTuple):
    """A stage of a network and its cost for one image."""

    name: str
    parameters: int
    multiply_adds: int


@dataclass(frozen=True, kw_only=True)
class RunReport:
    """Data of a run, read from its files.

    Attributes:
        name: name of the run, its folder.
        recipe: the settings, key -> value as text.
        defaults: the default of each setting.
        history: the metrics log, one row per epoch (see igcv.training.run).
        stages: the stages of the network; empty if there are no weights yet.
        evaluation: evaluation of the best epoch: "epoch", "classes", "confusion" as [class, prediction, images] and
            "mistakes"; None without validation images.
        note: a warning if the network is no better than always predicting one class; otherwise empty.
        scores: for each class with images: "class", "images", and "recall", "precision" and "f1" in percent.
        environment: machine and versions; empty before the end of the run.
    """

    name: str
    recipe: Mapping[str, str]
    defaults: Mapping[str, str]
    history: Sequence[Mapping[str, Any]]
    stages: Sequence[StageCost]
    evaluation: Mapping[str, Any] | None
    environment: Mapping[str, str]
    note: str = ""
    scores: Sequence[Mapping[str, Any]] = ()

    @property
    def best(self) -> Mapping[str, Any] | None:
        """The best epoch by the recipe's best_by, whose weights are saved; the last of equal epochs."""
        return best_row(self.history, self.recipe.get("best_by", "top1"))

    @property
    def costs(self) -> tuple[int, int]:
        """Parameters and multiply-adds of the network."""
        return sum(s.parameters for s in self.stages), sum(s.multiply_adds for s in self.stages)

    @property
    def images_per_s(self) -> float:
        """Training images per second, median over the epochs."""
        return median(row["images_per_s"] for row in self.history)

    @property
    def time_s(self) -> float:
        return sum(row["epoch_time_s"] for row in self.history)

    @cached_property
    def counts(self) -> dict[tuple[int, int], int]:
        """Images per pair of true class and predicted class."""
        return confusion_of(self.evaluation or {})

    @property
    def pairs(self) -> list[tuple[str, str, int, int]]:
        """The most frequent confusions: true class, predicted class, images, and images of the true class."""
        names, total = (self.evaluation or {})["classes"], images_of(self.counts)
        wrong = [(n, label, guess) for (label, guess), n in self.counts.items() if label != guess]
        most = sorted(wrong, key=lambda pair: (-pair[0], *pair[1:]))[:PAIRS]
        return [(names[label], names[guess], n, total[label]) for n, label, guess in most]

    @property
    def changed(self) -> set[str]:
        """The settings that differ from their defaults."""
        return {key for key, value in self.recipe.items() if value != self.defaults.get(key, "")}


def score(row: Mapping[str, Any], best_by: str) -> float | None:
    """Return the score of an epoch, higher is better; None without validation images."""
    key, sign = SCORES[best_by]
    if key not in row:
        return None
    return sign * row[key] if math.isfinite(row[key]) else -math.inf


def comparable(rows: Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """Return the epochs with the image size of the last epoch, whose scores are comparable."""
    return [row for row in rows if row.get("input_size") == rows[-1].get("input_size")]


def best_row(rows: Sequence[Mapping[str, Any]], best_by: str) -> Mapping[str, Any] | None:
    """Return the best epoch of a metrics log, the last of equal epochs; None without validation images.

    With progressive resizing, only epochs of the latest image size count (see `comparable`).
    """
    scored = [
        (found, row["epoch"], row) for row in comparable(rows) if (found := score(row, best_by)) is not None
    ]
    return max(scored, key=lambda entry: entry[:2])[2] if scored else None


def confusion_of(evaluation: Mapping[str, Any]) -> dict[tuple[int, int], int]:
    """Return the images per pair of true and predicted class, from the evaluation in a run folder."""
    return {(label, guess): images for label, guess, images in evaluation["confusion"]}


def images_of(counts: Mapping[tuple[int, int], int]) -> Counter[int]:
    """Return the images of each true class from a confusion matrix."""
    total: Counter[int] = Counter()
    for (label, _), images in sorted(counts.items()):
        total[label] += images
    return total


def duration(seconds: float) -> str:
    """Return a duration as text: 48 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.3g} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60:,} h {minutes % 60} min"
