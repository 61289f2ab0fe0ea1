"""Headline of a training: the lines before the first epoch."""

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
    """Return the headline: network, data, device, epochs, notes, chosen settings, expected time and warnings.

    Args:
        training: the training before its first step.
        out: the run folder.
    """
    job, state, begun = training.parts.job, training.state, training.begun
    recipe, source = job.recipe, job.source
    parameters = sum(p.numel() for p in training.trainer.network.parameters())
    validation = counted(len(source.val or []), "validation image")
    images = f"{len(source.train or []):,} training and {validation}"
    apart = [f"{len(source.test):,} test images are not used"] if source.test else []
    apart += ["see split.csv"] if source.divided else []
    images += f" ({'; '.join(apart)})" if apart else ""
    notes = "".join(f"{line}\n" for line in source.notes)
    where = job.process.device
    device = torch.cuda.get_device_name(where) if where.type == "cuda" else where.type.upper()
    place = f"step {begun.steps} of epoch {state.epoch + 1}" if begun.steps else f"epoch {state.epoch}"
    going_on = f"resuming after {place} of" if state.tensors else "for"
    note = f"\nresuming from the previous checkpoint: {state.note}" if state.note else ""
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
    """Return the chosen settings with their values and reasons, one per line; empty if there are none."""
    if not job.chosen:
        return ""
    lines = "\n".join(in_words(job.chosen))
    return f"\nsettings chosen for these images and this machine (change them with key=value):\n{lines}"


def expected(job: Job) -> str:
    """Return the expected time of the training, measured on its first steps; empty if not measured."""
    if job.expected_s is None:
        return ""
    return f"\nexpected time: about {duration(job.expected_s)}"


def smaller(recipe: Recipe) -> str:
    """Return the smaller image sizes of the first epochs; empty if there are none."""
    ends = list(accumulate(recipe.progressive_epochs))
    begins = [1, *(end + 1 for end in ends)]
    parts = [
        f"{size} in epoch{f's {begin} to' if end > begin else ''} {end}"
        for size, begin, end in zip(recipe.sizes, begins, ends, strict=False)
    ]
    return f" ({', '.join(parts)})" if parts else ""


def origin(job: Job) -> str:
    """Return a line about the initial weights and changed strides; empty for random initialization."""
    if job.start is None:
        return ""
    recipe, start, strides = job.recipe, job.start.card, job.start.model.strides
    change = "" if strides == recipe.strides else f", changed to {strides_text(recipe.strides)}"
    size = f"{start.input_size} x {start.input_size} pixels"
    return (
        f"starting from {recipe.init_from}: {start.model}, {size}, strides {strides_text(strides)}{change}; "
        f"{classifier_of(job)}\n"
    )


def classifier_of(job: Job) -> str:
    """Return whether the training keeps or replaces the classifier of the initial weights, in words."""
    assert job.start is not None
    known, count = job.start.known_classes, len(job.source.class_names)
    if job.start_labels is None:
        return f"new classifier for {count} classes (not among the {known.count} classes of the weights)"
    how = "by name" if known.named_as(job.source, job.recipe.match) else "by order"
    whole = (
        "classifier kept"
        if count == known.count
        else f"{count} of the {known.count} classes of the classifier kept"
    )
    return f"{whole}, classes matched {how}"


def whereabouts(job: Job) -> str:
    """Return a line about the decoding and caching of the images."""
    if job.recipe.resident == "on":
        memory = "GPU memory" if job.process.device.type == "cuda" else "memory"
        size = resident_bytes(job.source, job.preprocessing.input_size) / 2**20
        once = "once for each size" if job.recipe.progressive_sizes else "once"
        return f"images: decoded {once}, then cached in {memory} ({size:,.1f} MiB)"
    return f"images: decoded in every epoch, workers = {job.workers}"
