"""Expected time of a training, measured before its first epoch, and the epochs that fit into a time limit."""

import time
from collections.abc import Generator, Iterator
from contextlib import closing, contextmanager
from copy import deepcopy
from dataclasses import replace
from typing import NamedTuple

import torch
from torch import Tensor

from igcv.data import Loader, StreamImages
from igcv.machine.processes import from_main, highest
from igcv.machine.timing import now
from igcv.models import Network
from igcv.training.auto import Choice
from igcv.training.budget import epochs_within, fewest_epochs
from igcv.training.choose_forms import example_images
from igcv.training.graphs import WARM_UP
from igcv.training.job import Job, with_epochs
from igcv.training.loop import train_epoch
from igcv.training.memory import explained
from igcv.training.parts import make_loaders
from igcv.training.reporter import Silent
from igcv.training.start import make_trainer
from igcv.training.trainer import Trainer

STEPS = 4  # timed steps after one warm-up step
ROUNDS = 6  # iterations until epochs and dependent settings agree
LONG_MS = 3000  # milliseconds; if the first step on a CPU takes longer, no further steps are timed
EVALUATED = 0.4  # time per image in evaluation (decoding and forward pass), relative to training
FEWEST_EPOCHS = 4  # if fewer epochs fit, the epochs get fewer images
LONGEST_EVALUATION = 0.25  # largest share of evaluation in an epoch's time, if igcv chooses epoch_images

Batch = tuple[Tensor, Tensor]


class Pace(NamedTuple):
    """Seconds per image of input_size, over all processes together."""

    train_s: float
    val_s: float


class Steps:
    """The batches of `steps` optimizer steps, with the time spent waiting for them.

    The device is synchronized before each request, so the waiting time excludes computation.
    """

    def __init__(self, batches: Iterator[Batch], steps: int, t: Trainer) -> None:
        self._batches, self._count, self._device = batches, steps * t.recipe.accumulation, t.process.device
        self.wait_s = 0.0

    def __len__(self) -> int:
        return self._count

    def __iter__(self) -> Iterator[Batch]:
        for _ in range(self._count):
            start = now(self._device)
            batch = next(self._batches)
            self.wait_s += time.perf_counter() - start
            yield batch


class Timed(NamedTuple):
    """Measured time of some optimizer steps."""

    images: int  # images of this process
    seconds: float  # until the device has finished
    waiting: float  # share of `seconds` spent waiting for images, 0 to 1


def timed_steps(t: Trainer, batches: Iterator[Batch], steps: int) -> Timed:
    """Train some optimizer steps and return their time."""
    part, start = Steps(batches, steps, t), now(t.process.device)
    images = train_epoch(t, part, 0, Silent()).images
    seconds = now(t.process.device) - start
    return Timed(images, seconds, part.wait_s / seconds)


def endless(loader: Loader) -> Generator[Batch]:
    """Yield batches, epoch after epoch."""
    epoch = 0
    while True:
        loader.set_epoch(epoch)
        yield from loader
        epoch += 1


def paced(job: Job, network: Network) -> Job:
    """Return a new job with its expected time and with the number of epochs that fits into max_minutes.

    Chosen settings adapt to the number of epochs. The network does not change.
    """
    assert job.source.train is not None
    pace = from_main(measured_pace(job, network))
    images, val_images = len(job.source.train), len(job.source.val or ())
    if job.recipe.max_minutes:
        reason = f"{1 / pace.train_s:,.0f} images/s measured, for {job.recipe.max_minutes:g} minutes"
        for _ in range(1 if job.draft is None else ROUNDS):
            epochs, epoch_images = fitting(job, pace)
            job = with_epochs(job, Choice(epochs, reason), epoch_images)
    recipe = job.recipe
    epoch_s = min(recipe.epoch_images or images, images) * pace.train_s + val_images * pace.val_s
    return replace(job, expected_s=epoch_s * sum(recipe.step_costs) / recipe.input_size**2)


def measured_pace(job: Job, network: Network) -> Pace:
    """Return the pace of some training steps of a network copy."""
    copy = replace(job, recipe=replace(job.recipe, lr=0.0, compile=False))
    trainer = make_trainer(copy, deepcopy(network))
    with training_batches(job) as batches, explained(job, network, job.batch_size):
        took = timed_steps(trainer, batches, 1)
        (first_ms,) = highest(round(1000 * took.seconds))
        if first_ms < LONG_MS or job.process.device.type == "cuda":
            if trainer.graphs is not None:
                timed_steps(trainer, batches, WARM_UP)
            took = timed_steps(trainer, batches, STEPS)
    train_s = took.seconds / (took.images * job.process.world_size)
    return Pace(train_s, EVALUATED * train_s)


@contextmanager
def training_batches(job: Job) -> Iterator[Iterator[Batch]]:
    """Yield an endless iterator over batches: training images, or noise for resident images and streams."""
    if job.recipe.resident == "on" or isinstance(job.source.train, StreamImages):
        images = example_images(job, job.recipe.input_size)
        labels = torch.zeros(len(images), dtype=torch.int64, device=images.device)
        yield iter(lambda: (images, labels), None)
        return
    train, val = make_loaders(
        replace(job, preprocessing=replace(job.preprocessing, input_size=job.recipe.input_size))
    )
    try:
        with closing(endless(train)) as batches:
            yield batches
    finally:
        for loader in filter(None, (train, val)):
            loader.close()


def fitting(job: Job, pace: Pace) -> tuple[int, int]:
    """Return the number of epochs that fit into max_minutes, and the images per epoch (0: all).

    If not even a few whole epochs fit, the epochs get fewer images. The run then still completes its learning rate
    schedule and is evaluated several times.
    """
    recipe, seconds = job.recipe, 60 * job.recipe.max_minutes
    assert job.source.train is not None
    images, val_s = len(job.source.train), len(job.source.val or ()) * pace.val_s
    epoch_s = min(recipe.epoch_images or images, images) * pace.train_s + val_s
    epochs = epochs_within(recipe, seconds, epoch_s / recipe.input_size**2)
    given = vars(recipe) if job.draft is None else job.draft[1]
    fewest = fewest_epochs(given)
    fixed = (
        recipe.epoch_images or given.get("progressive_sizes") or isinstance(job.source.train, StreamImages)
    )
    if epochs >= FEWEST_EPOCHS or fixed:
        return max(epochs, fewest), recipe.epoch_images
    few = next((n for n in range(FEWEST_EPOCHS, 1, -1) if val_s <= LONGEST_EVALUATION * seconds / n), 1)
    few = max(few, fewest)
    shown = int((seconds / few - val_s) / pace.train_s)
    return few, min(max(shown, recipe.batch_size), images)
