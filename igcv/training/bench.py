"""Benchmark of data loading and of training steps."""

import time
from collections.abc import Iterator
from dataclasses import replace
from statistics import median
from typing import Any

import torch

from igcv.data import Loader
from igcv.machine.host import host
from igcv.machine.memory import keep_freed_memory, peak_mib, reset_peak
from igcv.machine.processes import Process
from igcv.machine.timing import now
from igcv.training.choose_forms import choose_forms
from igcv.training.draft import Draft
from igcv.training.graphs import WARM_UP
from igcv.training.job import Job, resolve
from igcv.training.memory import explained, largest_batch
from igcv.training.pace import Batch, endless, timed_steps
from igcv.training.parts import make_loaders
from igcv.training.recipe import Recipe
from igcv.training.start import make_trainer, resolve_precision, start_network
from igcv.training.state import State
from igcv.training.trainer import Trainer

REPEATS = 5  # measurements of each kind; the result reports their median and range


def bench_data(recipe: Recipe | Draft, process: Process, seconds: float = 10.0) -> dict[str, Any]:
    """Measure data loading alone (decode, augment, batch, copy to the device, normalize), then training steps.

    Nothing is saved.

    Args:
        recipe: a recipe or a draft, as for training.
        process: the only process.
        seconds: measuring time in seconds, half for each kind, after a warm-up.

    Returns:
        The conditions and the results. "loading" and "training" are images per second of all data-loading workers
        together. "waiting" is the share of the training time spent waiting for images, 0 to 1. Each has median, low
        and high of `REPEATS` measurements. "peak_memory_mib" is the peak memory; "largest_batch_size" is the estimated
        largest batch_size that fits into the free memory.

    Raises:
        InputError: the input is invalid.
    """
    if process.device.type == "cpu":
        keep_freed_memory()
    job = resolve(recipe, process)
    torch.manual_seed(job.recipe.seed)
    network = start_network(job)
    job = resolve_precision(job, network)
    trainer = make_trainer(job, network)
    trainer = choose_forms(job, trainer, State())
    loader, _ = make_loaders(job)
    batches = endless(loader)
    for _ in range(_warm_up(job, loader)):
        next(batches)
    share = seconds / 2 / REPEATS
    reset_peak(process.device)
    loading = [_loading_rate(batches, share, process.device) for _ in range(REPEATS)]
    with explained(job, network, job.batch_size):
        training, waiting = zip(*_training(trainer, batches, share), strict=True)
    peak = peak_mib(process.device)
    trainer = replace(trainer, graphs=None)  # frees their memory
    return {
        **_conditions(job),
        "loading": _spread(loading),
        "training": _spread(training),
        "waiting": _spread(waiting),
        "peak_memory_mib": peak,
        "largest_batch_size": largest_batch(job, network),
        "repeats": REPEATS,
        "machine": host(process.device),
    }


def _warm_up(job: Job, loader: Loader) -> int:
    """Return the number of warm-up batches.

    Resident images are decoded in the first epoch. Otherwise the workers prefetch some batches.
    """
    return len(loader) if job.recipe.resident == "on" else 2 * job.workers + 1


def _loading_rate(batches: Iterator[Batch], seconds: float, device: torch.device) -> float:
    """Return the images per second, measured over at least `seconds`."""
    count, start = 0, now(device)
    while time.perf_counter() - start < seconds:
        count += len(next(batches)[1])
    return count / (now(device) - start)


def _training(t: Trainer, batches: Iterator[Batch], seconds: float) -> list[tuple[float, float]]:
    """Return images per second and waiting share of `REPEATS` measurements of about `seconds` each."""
    timed_steps(t, batches, 1)  # the first step allocates memory and compiles
    if t.graphs is not None:
        timed_steps(t, batches, WARM_UP)
    steps = max(round(seconds / timed_steps(t, batches, 1).seconds), 1)
    took = [timed_steps(t, batches, steps) for _ in range(REPEATS)]
    return [(part.images / part.seconds, part.waiting) for part in took]


def _conditions(job: Job) -> dict[str, Any]:
    """Return the conditions of the measurement."""
    recipe = job.recipe
    return {
        "data": job.source.name,
        "images": len(job.source.train or ()),
        "model": recipe.model,
        "input_size": recipe.input_size,
        "batch_size": job.batch_size,
        "augment": recipe.augment,
        "resident": recipe.resident,
        "workers": job.workers,
    }


def _spread(values: Any) -> dict[str, float]:
    """Return the median, smallest and largest value."""
    return {"median": median(values), "low": min(values), "high": max(values)}
