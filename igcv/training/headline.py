"""What a training is about to do, in a few lines."""

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path

import torch

from igcv.models import strides_text
from igcv.report.run import duration
from igcv.terminal import counted
from igcv.training.auto import in_words
from igcv.training.epochs import Training
from igcv.training.job import Job, resident_bytes
from igcv.training.recipe import Recipe

FEW_STEPS = 4  # in an epoch, below which little is learned
MOST_LEFT_OUT = 0.1  # of the images of an epoch
LONGEST_EMA = 1 / 4  # of all steps that the moving average may span


def headline(training: Training, out: Path) -> str:
    """What is about to happen, in three lines, and one more where the newest checkpoint was damaged."""
    job, state, begun = training.parts.job, training.state, training.begun
    recipe, source = job.recipe, job.source
    parameters = sum(p.numel() for p in training.trainer.network.parameters())
    validation = counted(len(source.val or []), "validation image")
    images = f"{len(source.train or []):,} training and {validation}"
    apart = f" ({len(source.test):,} test images are kept apart)" if source.test else ""
    divided = "".join(f"{line}\n" for line in source.notes)
    where = job.process.device
    device = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type.upper()
    place = f"step {begun.steps} of epoch {state.epoch + 1}" if begun.steps else f"epoch {state.epoch}"
    going_on = f"resuming after {place} of" if state.tensors else "for"
    note = f"\nresuming from the checkpoint before the newest: {state.note}" if state.note else ""
    why = f" ({job.why_precision})" if job.why_precision else ""
    places = f"{job.process.world_size} processes, " if job.process.world_size > 1 else ""
    pixels = f"{recipe.input_size} x {recipe.input_size} pixels{smaller(recipe)}"
    warned = "".join(f"\n{line}" for line in cautions(job, len(training.parts.train)))
    return (
        f"{recipe.model}: {parameters:,} parameters, {pixels}, "
        f"strides {strides_text(recipe.strides)}, {counted(len(source.class_names), 'class')}\n"
        f"{origin(job)}"
        f"{source.spec}: {images}{apart}; {places}{device}, {recipe.precision}{why}; "
        f"{going_on} {counted(recipe.epochs, 'epoch')}; run folder {out}\n"
        f"{divided}{whereabouts(job)}{note}{chosen(job)}{expected(job)}{warned}"
    )


def cautions(job: Job, batches: int) -> Iterator[str]:
    """Yield a line for each setting that hardly lets the network learn from so few images.

    Args:
        job: the run.
        batches: of an epoch, in each process.
    """
    recipe, steps = job.recipe, batches // job.recipe.accumulation
    assert job.source.train is not None
    images = min(recipe.epoch_images or len(job.source.train), len(job.source.train))
    whole = steps * recipe.batch_size
    if steps < FEW_STEPS:
        yield (
            f"caution: batches of {recipe.batch_size} make {counted(steps, 'step')} in an epoch of "
            f"{counted(images, 'image')}, expected 10 or more; give a smaller batch_size, and in proportion a smaller "
            "lr"
        )
    if recipe.drop_last and images - whole > MOST_LEFT_OUT * images:
        yield (
            f"caution: {images - whole:,} of {images:,} images are left out of each epoch, as they fill no batch; give "
            "drop_last=false or a smaller batch_size"
        )
    span = 1 / (1 - recipe.ema_decay)
    if recipe.ema_decay and span > LONGEST_EMA * steps * recipe.epochs:
        yield (
            f"caution: the moving average spans {span:,.0f} steps of {steps * recipe.epochs:,} in all, so that it lags "
            f"behind; give ema_decay={max(1 - 10 / (steps * recipe.epochs), 0):.3g} or less, or more epochs"
        )


def chosen(job: Job) -> str:
    """Return the settings that nobody gave, with their values and reasons, a line each; empty if there are none."""
    if not job.chosen:
        return ""
    lines = "\n".join(in_words(job.chosen))
    return (
        f"\nchosen for these images and this machine (key=value on the command line sets another):\n{lines}"
    )


def expected(job: Job) -> str:
    """Return how long the training will take, by what its first steps took; empty if that was not measured."""
    if job.expected_s is None:
        return ""
    return f"\nexpected time: about {duration(job.expected_s)}"


def smaller(recipe: Recipe) -> str:
    """Return the smaller image sizes of the first epochs, for the headline; empty if there are none."""
    ends = list(accumulate(recipe.progressive_epochs))
    begins = [1, *(end + 1 for end in ends)]
    parts = [
        f"{size} in epoch{f's {begin} to' if end > begin else ''} {end}"
        for size, begin, end in zip(recipe.sizes, begins, ends, strict=False)
    ]
    return f" ({', '.join(parts)})" if parts else ""


def origin(job: Job) -> str:
    """Return a line on the weights that a training starts from, and on strides that are not theirs; else nothing."""
    if job.start is None:
        return ""
    recipe, start, strides = job.recipe, job.start.card, job.start.model.strides
    change = "" if strides == recipe.strides else f"; here the strides are {strides_text(recipe.strides)}"
    size = f"{start.input_size} x {start.input_size} pixels"
    return (
        f"starting from {recipe.init_from}: {start.model}, {size}, strides {strides_text(strides)}{change}\n"
    )


def whereabouts(job: Job) -> str:
    """Where the images are while the network is trained, in one line."""
    if job.recipe.resident == "on":
        memory = "GPU memory" if job.process.device.type == "cuda" else "memory"
        size = resident_bytes(job.source, job.preprocessing.input_size) / 2**20
        once = "once for each size" if job.recipe.progressive_sizes else "once"
        return f"images: decoded {once}, then kept in {memory} ({size:,.1f} MiB)"
    return f"images: decoded again in each epoch, workers = {job.workers}"
