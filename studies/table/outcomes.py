"""Results of trainings, read from their summaries: accuracies by network, data set and recipe."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from igcv.training.run import SUMMARY
from studies.table.plan import NETWORKS, SEEDS, label_of


class Measured(NamedTuple):
    """Last-epoch accuracies of one network or variant in percent, one per seed, and their summaries."""

    top1: Sequence[float]
    summaries: Sequence[Mapping[str, Any]]

    @property
    def mean(self) -> float:
        return statistics.mean(self.top1)

    @property
    def spread(self) -> float:
        """Standard deviation over the seeds. For one seed: binomial standard error over its images."""
        if len(self.top1) > 1:
            return statistics.stdev(self.top1)
        share, images = self.mean / 100, self.summaries[0]["last"]["images"]
        return 100 * math.sqrt(share * (1 - share) / images)

    def __str__(self) -> str:
        """Return mean and spread, with a note if there is only one seed."""
        if not self.top1:
            return ""
        return f"{self.mean:.2f} ± {self.spread:.2f}" + (" (one seed)" if len(self.top1) == 1 else "")


class Column(NamedTuple):
    """Results on a data set with a recipe.

    Attributes:
        data: name of the data set.
        recipe: name of the recipe, without suffix.
        networks: results by catalog name.
    """

    data: str
    recipe: str
    networks: Mapping[str, Measured]

    @property
    def label(self) -> str:
        """Column header: data set, recipe and number of epochs."""
        epochs = sorted({s["epochs"] for s in self.summaries})
        return f"{label_of(self.data)}, {self.recipe}, {' or '.join(map(str, epochs))} epochs"

    @property
    def summaries(self) -> list[Mapping[str, Any]]:
        """Summaries of all trainings in the column."""
        return [summary for found in self.networks.values() for summary in found.summaries]


def read_measured(folder: Path, names: Iterable[str]) -> Measured:
    """Return the results of the finished trainings with these names in a folder."""
    files = [folder / name / SUMMARY for name in names]
    summaries = [json.loads(file.read_text()) for file in files if file.is_file()]
    return Measured([summary["last"]["top1"] for summary in summaries], summaries)


def columns(results: Path) -> list[Column]:
    """Return one column of results per data set and recipe with a finished training."""
    found = []
    for folder in sorted(folder for folder in results.glob("*/*") if folder.is_dir()):
        if folder.parent.name.endswith("_ablation"):
            continue
        networks = {
            row.model: read_measured(folder, [f"{row.model}-seed{seed}" for seed in SEEDS])
            for row in NETWORKS
        }
        found.append(Column(folder.parent.name, folder.name, networks))
    return [column for column in found if column.summaries]
