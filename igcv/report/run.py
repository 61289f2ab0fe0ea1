"""A run as its files tell it, as plain data."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from statistics import median
from typing import Any, NamedTuple

PAIRS = 12  # confusions that are listed


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


def images_of(counts: Mapping[tuple[int, int], int]) -> dict[int, int]:
    """The images of each class, from how often which class is taken for which."""
    total: dict[int, int] = {}
    for (label, _), images in sorted(counts.items()):
        total[label] = total.get(label, 0) + images
    return total
