"""Training: recipe -> loop -> run folder, and evaluation."""

from igcv.training.bench import bench_data
from igcv.training.distributed import Process, choose_device, process_group
from igcv.training.evaluate import Evaluation, evaluate, evaluate_classifier
from igcv.training.recipe import Recipe, find_recipe, load_recipe
from igcv.training.run import read_metrics
from igcv.training.train import train

__all__ = [
    "Evaluation",
    "Process",
    "Recipe",
    "bench_data",
    "choose_device",
    "evaluate",
    "evaluate_classifier",
    "find_recipe",
    "load_recipe",
    "process_group",
    "read_metrics",
    "train",
]
