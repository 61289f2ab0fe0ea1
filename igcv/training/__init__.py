"""Training of networks into run folders."""

from typing import TYPE_CHECKING

from igcv.renamed import old_names
from igcv.training.bench import bench_data
from igcv.training.phases import TrainedRun, train
from igcv.training.recipe import Recipe
from igcv.training.recipe_file import find_recipe, load_recipe
from igcv.training.run import read_metrics
from igcv.training.run_report import write_report

__all__ = [
    "Recipe",
    "TrainedRun",
    "bench_data",
    "find_recipe",
    "load_recipe",
    "read_metrics",
    "train",
    "write_report",
]

if not TYPE_CHECKING:  # type checkers reject the old names
    __getattr__ = old_names(__name__)
