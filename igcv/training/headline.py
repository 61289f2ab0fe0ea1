"""What a training is about to do, in a few lines."""

from itertools import accumulate
from pathlib import Path

import torch

from igcv.models import strides_text
from igcv.report.run import duration
from igcv.terminal import counted
from igcv.training.auto import in_words
from igcv.training.cautions import cautions
from igcv.training.epochs import Training
from igcv.training.job import Job, resident_bytes
from igcv.training.recipe import Recipe


def headline(training: Training, out: Path) -> str:
    """What is about to happen, in three lines, and one more where the newest checkpoint was damaged."""
    job, state, begun = training.parts.job, training.state, training.begun
    recipe, source = job.recipe, job.source
    parameters = sum(p.numel() for p in training.trainer.network.parameters())
    validation = counted(len(source.val or []), "validation image")
    images = f"{len(source.train or []):,} training and {validation}"
    apart = [f"{len(source.test):,} test images are kept apart"] if source.test else []
    apart += ["split.csv lists which"] if source.divided else []
    images += f" ({'; '.join(apart)})" if apart else ""
    notes = "".join(f"{line}\n" for line in source.notes)
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
        f"{source.name}: {images}; {places}{device}, {recipe.precision}{why}; "
        f"{going_on} {counted(recipe.epochs, 'epoch')}; run folder {out}\n"
        f"{notes}{whereabouts(job)}{note}{chosen(job)}{expected(job)}{warned}"
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
        f"starting from {recipe.init_from}: {start.model}, {size}, strides {strides_text(strides)}{change}; "
        f"{classifier_of(job)}\n"
    )


def classifier_of(job: Job) -> str:
    """Return what becomes of the classifier of the weights to start from."""
    assert job.start is not None
    known, count = job.start.known_classes, len(job.source.class_names)
    if job.start_labels is None:
        return f"a new classifier for {count} classes, as they are not among its {known.count}"
    how = "by name" if known.named_as(job.source, job.recipe.match) else "by order"
    whole = (
        "its classifier"
        if count == known.count
        else f"{count} of the {known.count} classes of its classifier"
    )
    return f"{whole} kept, classes matched {how}"


def whereabouts(job: Job) -> str:
    """Where the images are while the network is trained, in one line."""
    if job.recipe.resident == "on":
        memory = "GPU memory" if job.process.device.type == "cuda" else "memory"
        size = resident_bytes(job.source, job.preprocessing.input_size) / 2**20
        once = "once for each size" if job.recipe.progressive_sizes else "once"
        return f"images: decoded {once}, then kept in {memory} ({size:,.1f} MiB)"
    return f"images: decoded again in each epoch, workers = {job.workers}"
