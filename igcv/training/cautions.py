"""Warnings about data and settings that hinder learning or have no effect."""

import os
from collections.abc import Callable, Iterator
from typing import NamedTuple

from igcv.data import Images, StreamImages
from igcv.data.inspection import COMPARED, copies
from igcv.data.sources.listed import PARTS
from igcv.errors import some
from igcv.terminal import counted
from igcv.training.classes import untrained_classes
from igcv.training.job import Job
from igcv.training.recipe import Recipe

FEW_STEPS = 4  # steps per epoch; below this number, a network learns little
MOST_LEFT_OUT = 0.1  # share of an epoch's images
LONGEST_EMA = 1 / 4  # largest span of the EMA, as a share of all steps
HIGHEST_ADAMW_LR = 0.02
_COPIES = {"val": ("validation", "training"), "test": ("test", "training or validation")}


def cautions(job: Job, batches: int) -> Iterator[str]:
    """Yield a warning for each setting that hinders learning or has no effect.

    Args:
        job: the run.
        batches: batches per epoch in each process.
    """
    recipe, steps = job.recipe, batches // job.recipe.accumulation
    if untrained := untrained_classes(job.source):
        yield f"caution: classes without training images, which cannot be learned: {some(untrained)}"
    yield from copied(job)
    assert job.source.train is not None
    images = min(recipe.epoch_images or len(job.source.train), len(job.source.train))
    whole = steps * recipe.batch_size
    if steps < FEW_STEPS:
        yield (
            f"caution: batch_size = {recipe.batch_size} gives {counted(steps, 'step')} per epoch of "
            f"{counted(images, 'image')}, expected 10 or more. Give a smaller batch_size, and lower lr in proportion"
        )
    if recipe.drop_last and images - whole > MOST_LEFT_OUT * images:
        yield (
            f"caution: every epoch skips {images - whole:,} of {images:,} images (its incomplete last batch). Give "
            "drop_last=false or a smaller batch_size"
        )
    span = 1 / (1 - recipe.ema_decay)
    if recipe.ema_decay and span > LONGEST_EMA * steps * recipe.epochs:
        yield (
            f"caution: the EMA spans {span:,.0f} of {steps * recipe.epochs:,} steps, so its weights lag behind. Give "
            f"ema_decay={max(1 - 10 / (steps * recipe.epochs), 0):.3g} or less, or more epochs"
        )
    yield from _odd_rates(recipe)
    for key, why in without_effect(job):
        yield f"caution: {key} = {_shown(getattr(recipe, key))} has no effect: {why}"


def copied(job: Job) -> Iterator[str]:
    """Yield a warning for each part that has copies of images of an earlier part."""
    parts = {name: files for name in PARTS if (files := _files(getattr(job.source, name)))}
    total = sum(map(len, parts.values()))
    if len(parts) < 2 or not job.process.is_main:
        return
    if total > COMPARED:
        yield f"no search for copies among {total:,} images; igcv check finds copies in different parts"
        return
    groups = copies(list(parts.values()))
    for number, (name, files) in enumerate(parts.items()):
        count = sum(part == number for group in groups if group[0][0] < number for part, _ in group)
        if count:
            measured, before = _COPIES[name]
            yield (
                f"caution: {count:,} of {len(files):,} {measured} images are copies of {before} images, so the "
                f"{measured} accuracy is too high. igcv check lists them"
            )


def _files(images: Images | StreamImages | None) -> list[str]:
    """Return the files of images; empty if the images do not have a file each."""
    if images is None or isinstance(images, StreamImages) or not os.path.isfile(images.name(0)):
        return []
    return [images.name(i) for i in range(len(images))]


def _odd_rates(recipe: Recipe) -> Iterator[str]:
    """Yield a warning about a learning rate with which no network learns."""
    if recipe.lr == 0:
        yield "caution: lr = 0, so the network does not learn"
    if recipe.optimizer == "adamw" and recipe.lr > HIGHEST_ADAMW_LR:
        yield (
            f"caution: lr = {recipe.lr:g} suits sgd and is too high for adamw. Give lr=0.001, at most "
            f"{HIGHEST_ADAMW_LR:g}"
        )


def without_effect(job: Job) -> Iterator[tuple[str, str]]:
    """Yield each setting that differs from its default but has no effect, with the reason."""
    recipe = job.recipe
    default = Recipe()
    for key, unused, why in UNUSED:
        if getattr(recipe, key) != getattr(default, key) and unused(job):
            yield key, why.format(**vars(recipe))
    late = [epoch for epoch in recipe.lr_step_epochs if epoch >= recipe.epochs]
    if recipe.schedule == "step" and late:
        yield "lr_step_epochs", f"the training ends at epoch {recipe.epochs}, before {late[0]:g}"


def _shown(value: object) -> str:
    return ",".join(f"{item:g}" for item in value) if isinstance(value, tuple) else str(value)


class Unused(NamedTuple):
    """A setting that has no effect under a condition; `why` may contain recipe keys in braces."""

    key: str
    condition: Callable[[Job], bool]
    why: str


UNUSED = (
    Unused("lr_step_epochs", lambda job: job.recipe.schedule != "step", "schedule = {schedule} has no steps"),
    Unused(
        "lr_factor",
        lambda job: job.recipe.schedule in ("cosine", "constant"),
        "schedule = {schedule} has no factor",
    ),
    Unused("min_lr", lambda job: job.recipe.schedule != "cosine", "only schedule = cosine uses it"),
    Unused("decay_rule", lambda job: job.recipe.weight_decay == 0, "weight_decay is 0"),
    Unused("max_left_out", lambda job: job.recipe.precision != "fp16", "precision is {precision}, not fp16"),
    Unused("patience", lambda job: job.source.val is None, "there are no validation images"),
    Unused("best_by", lambda job: job.source.val is None, "there are no validation images"),
    Unused("sync_batch_norm", lambda job: job.process.world_size == 1, "there is one process"),
)
