"""Lines about data and settings that hardly let a network learn, or that have no effect."""

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

FEW_STEPS = 4  # in an epoch, below which little is learned
MOST_LEFT_OUT = 0.1  # of the images of an epoch
LONGEST_EMA = 1 / 4  # of all steps that the moving average may span
HIGHEST_ADAMW_LR = 0.02
_COPIES = {"val": ("validation", "training"), "test": ("test", "training or validation")}


def cautions(job: Job, batches: int) -> Iterator[str]:
    """Yield a line for each setting that hardly lets the network learn, or that has no effect.

    Args:
        job: the run.
        batches: of an epoch, in each process.
    """
    recipe, steps = job.recipe, batches // job.recipe.accumulation
    if untrained := untrained_classes(job.source):
        yield f"caution: no training images, so that nothing is learned of the classes: {some(untrained)}"
    yield from copied(job)
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
    yield from _odd_rates(recipe)
    for key, why in without_effect(job):
        yield f"caution: {key} = {_shown(getattr(recipe, key))} has no effect, as {why}"


def copied(job: Job) -> Iterator[str]:
    """Yield a line for each part of which some images are copies of images of a part before it."""
    parts = {name: files for name in PARTS if (files := _files(getattr(job.source, name)))}
    total = sum(map(len, parts.values()))
    if len(parts) < 2 or not job.process.is_main:
        return
    if total > COMPARED:
        yield f"copies of images in two parts are not looked for among {total:,} images; igcv check finds them"
        return
    groups = copies(list(parts.values()))
    for number, (name, files) in enumerate(parts.items()):
        count = sum(part == number for group in groups if group[0][0] < number for part, _ in group)
        if count:
            measured, before = _COPIES[name]
            yield (
                f"caution: {count:,} of {len(files):,} {measured} images are copies of {before} images, so that their "
                "accuracy says little; igcv check names them"
            )


def _files(images: Images | StreamImages | None) -> list[str]:
    """The files of images that have one each; else none."""
    if images is None or isinstance(images, StreamImages) or not os.path.isfile(images.name(0)):
        return []
    return [images.name(i) for i in range(len(images))]


def _odd_rates(recipe: Recipe) -> Iterator[str]:
    """Yield a line on a learning rate with which no network learns."""
    if recipe.lr == 0:
        yield "caution: lr = 0, so that nothing is learned"
    if recipe.optimizer == "adamw" and recipe.lr > HIGHEST_ADAMW_LR:
        yield (
            f"caution: lr = {recipe.lr:g} is a rate for sgd, with which adamw hardly learns; give lr=0.001, or up to "
            f"{HIGHEST_ADAMW_LR:g}"
        )


def without_effect(job: Job) -> Iterator[tuple[str, str]]:
    """Yield each setting that is not at its default and changes nothing, and why."""
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
    """A setting that changes nothing under a condition, and why; settings of the recipe can be named in braces."""

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
    Unused("min_lr", lambda job: job.recipe.schedule != "cosine", "only schedule = cosine ends there"),
    Unused("decay_rule", lambda job: job.recipe.weight_decay == 0, "weight_decay is 0"),
    Unused("max_left_out", lambda job: job.recipe.precision != "fp16", "precision is {precision}, not fp16"),
    Unused("patience", lambda job: job.source.val is None, "there are no validation images"),
    Unused("best_by", lambda job: job.source.val is None, "there are no validation images"),
    Unused("sync_batch_norm", lambda job: job.process.world_size == 1, "there is one process"),
)
