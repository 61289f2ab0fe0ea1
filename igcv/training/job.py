"""A resolved run: the recipe with everything filled in that it leaves to the data, the network and the machine."""

import os
from dataclasses import dataclass, replace

from igcv.data import CIFAR, IMAGENET, MXNET, DataSource, Preprocessing, open_source
from igcv.errors import InputError
from igcv.models import default_input_size
from igcv.training.distributed import Process
from igcv.training.recipe import Recipe

WORTH_WORKERS = 5000  # images; starting processes for fewer takes longer than it saves
PREPROCESSING = {"imagenet": IMAGENET, "cifar": CIFAR, "mxnet": MXNET}


@dataclass(frozen=True)
class Job:
    """A resolved run: what is trained, on what, where."""

    recipe: Recipe
    source: DataSource
    preprocessing: Preprocessing
    process: Process
    batch_size: int  # of one part in one process
    workers: int


def plan(recipe: Recipe, process: Process) -> Job:
    """Open the data and fill in what the recipe leaves to it; all that can be wrong is found here.

    Raises:
        InputError: for anything in the recipe that does not fit the data, the network or the processes.
    """
    if not recipe.data:
        raise InputError("no data set given; add --data, e.g. --data digits or --data folder:PATH")
    parts = process.world_size * recipe.accumulation
    if recipe.batch_size % parts:
        raise InputError(
            f"batch_size {recipe.batch_size} cannot be shared by {process.world_size} processes in "
            f"{recipe.accumulation} parts each; give a multiple of {parts}"
        )
    if recipe.precision == "fp16" and process.device.type == "cpu":
        raise InputError("precision fp16 needs a GPU; on the CPU give precision=float32 or precision=bf16")
    if recipe.sync_batch_norm and process.world_size > 1 and process.device.type != "cuda":
        raise InputError("sync_batch_norm needs GPUs; leave it out on the CPU")
    source = open_source(recipe.data, seed=0)
    if source.train is None:
        raise InputError(f"{recipe.data} has no training images; give a source with a training part")
    batch_size = recipe.batch_size // parts
    if (recipe.mixup or recipe.cutmix) and min(batch_size, len(source.train) // process.world_size) < 2:
        raise InputError("mixup and cutmix pair images; give at least two per process and part of a batch")
    native = source.image_size or default_input_size(recipe.model)
    size = recipe.input_size or min(native, default_input_size(recipe.model))
    preset = PREPROCESSING[recipe.preprocessing]
    crop = 1.0 if source.image_size is not None and source.image_size <= size else preset.crop
    return Job(
        recipe=replace(recipe, input_size=size),
        source=source,
        preprocessing=replace(preset, input_size=size, crop=crop),
        process=process,
        batch_size=batch_size,
        workers=_workers(recipe.workers, process, len(source.train)),
    )


def _workers(asked: int, process: Process, images: int) -> int:
    """Loading processes: as asked, else none for small sets, one on the CPU, a share of the cores beside a GPU."""
    if asked >= 0:
        return asked
    if images < WORTH_WORKERS:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if process.device.type == "cpu" else max(1, min(8, cores // process.world_size))
