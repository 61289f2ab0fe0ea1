"""The recipe of a training that names none: each setting follows from the data and the device, with a reason.

The rules stand in one table, in the order in which they are asked; each sees what was given and chosen before it. Given
settings are kept, and the rules after them follow.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from igcv.data import BadImageError, DataSource, Images, StreamImages
from igcv.machine.processes import Process

SEEN = 32  # images whose sizes are looked at
SMALL_SIDE = 64  # pixels; squares up to this size are trained on as they are
CPU_SIDE, GPU_SIDE = 64, 224  # pixels of photos
LARGEST_BATCH, SMALLEST_BATCH = 128, 4
STEPS_PER_EPOCH = 20  # at least, by which the batch size is chosen
LR_PER_IMAGE = 0.05 / 32  # peak learning rate of a batch, for each of its images
SHOWN = {"cpu": 120_000, "gpu": 480_000}  # images shown in a whole training of a small set
FEWEST_EPOCHS, MOST_EPOCHS = 30, 150
CPU_IMAGES_PER_S = 150  # a guess before anything is measured
EMA_PART = 1 / 15  # of all steps, which the moving average spans
FEWEST_EMA_STEPS = 300  # shorter trainings go without


class Choice(NamedTuple):
    """A value for a setting, and in a few words why."""

    value: Any
    reason: str


@dataclass(frozen=True)
class Facts:
    """What the rules know.

    Attributes:
        images: training images.
        side: their typical shorter side in pixels.
        squares: whether all are squares of one size.
        gpu: whether the training has a GPU.
        processes: that share a batch.
    """

    images: int
    side: int
    squares: bool
    gpu: bool
    processes: int = 1


Settings = Mapping[str, Any]
Rule = Callable[[Facts, Settings], Choice]


def facts_of(source: DataSource, process: Process) -> Facts:
    """Look at a source and at the processes of a training."""
    assert source.train is not None
    squares = source.image_size is not None
    side = source.image_size or typical_side(source.train)
    return Facts(len(source.train), side, squares, process.device.type != "cpu", process.world_size)


def typical_side(images: Images | StreamImages) -> int:
    """Return the median of the shorter sides of some images, in pixels; of a stream the usual size of photos."""
    if isinstance(images, StreamImages):
        return GPU_SIDE
    sides = []
    for i in np.unique(np.linspace(0, len(images) - 1, SEEN).astype(int)):
        try:
            sides.append(min(images[int(i)][0].size))
        except BadImageError:  # reported where it is used
            continue
    return int(median(sides)) if sides else GPU_SIDE


def choose(facts: Facts, given: Settings) -> dict[str, Choice]:
    """Return a choice for each setting that has a rule and is not given."""
    known: dict[str, Any] = dict(given)
    chosen = {}
    for key, rule in RULES.items():
        if key not in given:
            chosen[key] = rule(facts, known)
            known[key] = chosen[key].value
    return chosen


def in_words(choices: Mapping[str, Choice]) -> Iterable[str]:
    """Yield the choices with their reasons, a line each."""
    width = max(map(len, choices), default=0)
    for key, (value, reason) in choices.items():
        shown = (
            str(value).lower()
            if isinstance(value, bool)
            else f"{value:g}"
            if isinstance(value, float)
            else value
        )
        yield f"  {key:<{width}} {shown}  ({reason})"


def _model(facts: Facts, known: Settings) -> Choice:
    return (
        Choice("igcv3_d_100", "a GPU") if facts.gpu else Choice("igcv3_d_050", "a processor: half the width")
    )


def _input_size(facts: Facts, known: Settings) -> Choice:
    if facts.squares and facts.side <= SMALL_SIDE:
        return Choice(facts.side, "the images' own size")
    limit = GPU_SIDE if facts.gpu else CPU_SIDE
    size = max(min(facts.side, limit) // 32 * 32, 32)
    return Choice(size, f"photos of about {facts.side} pixels, on a {'GPU' if facts.gpu else 'processor'}")


def _preprocessing(facts: Facts, known: Settings) -> Choice:
    small = known["input_size"] <= 32
    return Choice("cifar" if small else "imagenet", "small images" if small else "photos")


def _augment(facts: Facts, known: Settings) -> Choice:
    if facts.squares and facts.side <= SMALL_SIDE:
        return Choice("flip_crop", "small images")
    return Choice("inception", "photos: random crops, flips and colors")


def _batch_size(facts: Facts, known: Settings) -> Choice:
    size = LARGEST_BATCH
    while size > SMALLEST_BATCH and facts.images < size * STEPS_PER_EPOCH:
        size //= 2
    share = facts.processes * known.get("accumulation", 1)
    size = max(size // share, 2) * share
    steps = max(facts.images // size, 1)
    return Choice(size, f"{steps:,} steps in an epoch of {facts.images:,} images")


def _drop_last(facts: Facts, known: Settings) -> Choice:
    return Choice(False, "every image trains")


def _epochs(facts: Facts, known: Settings) -> Choice:
    if minutes := known.get("max_minutes"):
        guess = round(60 * minutes * CPU_IMAGES_PER_S / facts.images)
        return Choice(max(guess, 2), f"a guess for {minutes:g} minutes, fitted after the first epoch")
    shown = SHOWN["gpu" if facts.gpu else "cpu"]
    epochs = min(max(round(shown / facts.images), FEWEST_EPOCHS), MOST_EPOCHS)
    return Choice(epochs, f"{epochs * facts.images:,} images in all")


def _lr(facts: Facts, known: Settings) -> Choice:
    return Choice(LR_PER_IMAGE * known["batch_size"], f"for batches of {known['batch_size']}")


def _warmup(facts: Facts, known: Settings) -> Choice:
    return Choice(min(2.0, known["epochs"] / 10), "a tenth of the epochs, at most 2")


def _ema_decay(facts: Facts, known: Settings) -> Choice:
    steps = known["epochs"] * max(facts.images // known["batch_size"], 1)
    if steps < FEWEST_EMA_STEPS:
        return Choice(0.0, f"none in {steps:,} steps")
    return Choice(round(1 - 1 / (steps * EMA_PART), 5), f"over a fifteenth of about {steps:,} steps")


RULES: dict[str, Rule] = {
    "model": _model,
    "input_size": _input_size,
    "preprocessing": _preprocessing,
    "augment": _augment,
    "batch_size": _batch_size,
    "drop_last": _drop_last,
    "epochs": _epochs,
    "lr": _lr,
    "warmup_epochs": _warmup,
    "ema_decay": _ema_decay,
    "weight_decay": lambda facts, known: Choice(5e-4, "few images"),
    "label_smoothing": lambda facts, known: Choice(0.1, "as usual"),
    "precision": lambda facts, known: Choice("auto", "the faster one"),
}
