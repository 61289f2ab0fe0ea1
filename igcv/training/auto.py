"""Choice of the settings of a training without a recipe, from the data and the device, with reasons.

The table `RULES` holds one rule per setting, in the order of evaluation. A rule sees the given settings and the choices
of earlier rules. Given settings are never changed.
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from math import log2, prod
from typing import Any, NamedTuple

from igcv.data.preprocessing import PRESETS, Preprocessing
from igcv.terminal import counted
from igcv.training.facts import CPU_IMAGES_PER_S, FEWEST_EPOCHS, GPU_SIDE, Facts, Settings, usual_model
from igcv.training.recipe import NO_START

CPU_SIDE = 64  # pixels of photos on a CPU; on a GPU, GPU_SIDE applies
CPU_START_SIDE = 128  # the same if the training starts from trained weights
LARGEST_BATCH, SMALLEST_BATCH = 128, 4
LR_PER_IMAGE = 0.05 / 32  # peak learning rate per image in a batch
ADAMW_LR = 1e-3  # peak learning rate of adamw
START_RATE = 0.3  # factor on the learning rate if the training starts from trained weights
SHOWN = {"cpu": 240_000, "gpu": 480_000}  # images processed in a whole training of a small set
MOST_EPOCHS = 300
EMA_PART = 1 / 15  # span of the exponential moving average (EMA), as a share of all steps
FEWEST_EMA_STEPS = 300  # shorter trainings have no EMA
FREEZE_BELOW = 10_000  # images; larger sets need no protection of trained layers
FREEZE_PART = 1 / 10  # share of the epochs that train only a new classifier
FIRST_SIZE = 3 / 4  # image side in the first epochs on a CPU, as a share of input_size
FIRST_PART = 1 / 2  # share of the epochs with these smaller images


class Choice(NamedTuple):
    """A value for a setting, with a short reason."""

    value: Any
    reason: str


Rule = Callable[[Facts, Settings], Choice | None]


def choose(facts: Facts, given: Settings, keys: Collection[str] = ()) -> dict[str, Choice]:
    """Return the choices for the settings that have a rule and are not given.

    Args:
        facts: the facts about data, device and initial weights.
        given: the given settings, by key.
        keys: if not empty, choose these settings instead, even if they are given.
    """
    known: dict[str, Any] = dict(given)
    chosen = {}
    for key, rule in RULES.items():
        wanted = key in keys if keys else key not in given
        if wanted and (choice := rule(facts, known)) is not None:
            chosen[key] = choice
            known[key] = choice.value
    return chosen


def in_words(choices: Mapping[str, Choice]) -> Iterable[str]:
    """Yield one line per choice, with its reason."""
    width = max(map(len, choices), default=0)
    for key, (value, reason) in choices.items():
        yield f"  {key:<{width}} {_shown(value)}  ({reason})"


def _shown(value: Any) -> str:
    """Return a value in the syntax of the command line."""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _init_from(facts: Facts, known: Settings) -> Choice:
    if facts.start is not None:
        return Choice(facts.start_name, facts.start_reason)
    return Choice(NO_START, "small images" if facts.small else facts.start_reason)


def _model(facts: Facts, known: Settings) -> Choice:
    if facts.start is not None:
        return Choice(facts.start.model, f"the network of {known['init_from']}")
    return Choice(usual_model(facts), "on a GPU" if facts.gpu else "on a CPU: half the blocks")


def _multiplier(facts: Facts, known: Settings) -> Choice | None:
    width = facts.start.multiplier if facts.start else None
    return None if width is None else Choice(width, f"as in {known['init_from']}")


def _input_size(facts: Facts, known: Settings) -> Choice:
    if facts.small:
        return Choice(facts.side, "the image size of the data")
    where = "on a GPU" if facts.gpu else "on a CPU"
    limit = GPU_SIDE if facts.gpu else CPU_SIDE
    if facts.start is not None:
        limit = facts.start.input_size if facts.gpu else min(facts.start.input_size, CPU_START_SIDE)
        where += f", weights for {facts.start.input_size}"
    size = max(min(facts.side, limit) // 32 * 32, 32)
    return Choice(size, f"photos of about {facts.side} pixels, {where}")


def _strides(facts: Facts, known: Settings) -> Choice | None:
    """Keep the strides of the initial weights, which were trained with them."""
    start = facts.start
    if start is None or not start.strides or known["model"] != start.model:
        return None
    fits = known["input_size"] >= prod(start.strides)
    return Choice(tuple(start.strides), f"as in {known['init_from']}") if fits else None


def _preprocessing(facts: Facts, known: Settings) -> Choice:
    if facts.start is not None and facts.start.preprocessing:
        own = Preprocessing.from_dict(facts.start.preprocessing)
        same = (name for name, preset in PRESETS.items() if (preset.mean, preset.std) == (own.mean, own.std))
        return Choice(next(same, "imagenet"), f"as in {known['init_from']}")
    small = known["input_size"] <= 32
    return Choice("cifar" if small else "imagenet", "small images" if small else "photos")


def _augment(facts: Facts, known: Settings) -> Choice:
    if facts.small:
        return Choice("flip_crop", "small images")
    return Choice("inception", "photos: random crops, flips and color changes")


def _batch_size(facts: Facts, known: Settings) -> Choice:
    size = 2 ** round(log2(facts.images) / 2)  # about as many steps per epoch as images per step
    size = min(max(size, SMALLEST_BATCH), LARGEST_BATCH)
    share = facts.processes * known.get("accumulation", 1)
    size = max(size // share, 2) * share
    steps = max(facts.images // size, 1)
    return Choice(size, f"{counted(steps, 'step')} per epoch of {counted(facts.images, 'image')}")


def _drop_last(facts: Facts, known: Settings) -> Choice:
    return Choice(False, "trains on every image")


def _epochs(facts: Facts, known: Settings) -> Choice:
    if minutes := known.get("max_minutes"):
        guess = round(60 * minutes * CPU_IMAGES_PER_S / facts.images)
        return Choice(max(guess, 2), f"a guess for {minutes:g} minutes, before the speed is measured")
    shown = SHOWN["gpu" if facts.gpu else "cpu"]
    epochs = min(max(round(shown / facts.images), FEWEST_EPOCHS), MOST_EPOCHS)
    return Choice(epochs, f"{counted(epochs * facts.images, 'image')} in total")


def _freeze(facts: Facts, known: Settings) -> Choice | None:
    """Protect the trained layers from the first gradients of a new classifier; on many images they recover."""
    if facts.start is None or facts.images >= FREEZE_BELOW:
        return None
    epochs = min(max(round(known["epochs"] * FREEZE_PART), 1), known["epochs"] - 1)
    return Choice(epochs, "few images: the classifier first")


def _grows(facts: Facts, known: Settings) -> bool:
    """Return whether smaller images come first; they train faster, but trained weights do not need them."""
    return not facts.gpu and not facts.small and facts.start is None and known["input_size"] >= CPU_SIDE


def _progressive_sizes(facts: Facts, known: Settings) -> Choice | None:
    if not _grows(facts, known):
        return None
    first = round(known["input_size"] * FIRST_SIZE)
    fits = known["epochs"] >= 2 and first >= prod(known.get("strides") or ())
    return Choice((first,), "smaller images first: faster training") if fits else Choice((), "few epochs")


def _progressive_epochs(facts: Facts, known: Settings) -> Choice | None:
    parts = len(known.get("progressive_sizes", ()))
    if not _grows(facts, known) or parts > 1:  # the user gave several sizes
        return None
    return Choice(
        (round(known["epochs"] * FIRST_PART),) * parts, "half of the epochs" if parts else "few epochs"
    )


def _lr(facts: Facts, known: Settings) -> Choice:
    lr, what = LR_PER_IMAGE * known["batch_size"], f"batches of {known['batch_size']}"
    if known.get("optimizer") == "adamw":
        lr, what = ADAMW_LR, "adamw"
    if facts.start is not None:
        return Choice(START_RATE * lr, f"for {what}, from trained weights")
    return Choice(lr, f"for {what}")


def _warmup(facts: Facts, known: Settings) -> Choice:
    return Choice(min(2.0, known["epochs"] / 10), "a tenth of the epochs, at most 2")


def _ema_decay(facts: Facts, known: Settings) -> Choice:
    steps = known["epochs"] * max(facts.images // known["batch_size"], 1)
    if steps < FEWEST_EMA_STEPS:
        return Choice(0.0, f"none for only {counted(steps, 'step')}")
    return Choice(round(1 - 1 / (steps * EMA_PART), 5), f"spans a fifteenth of about {steps:,} steps")


RULES: dict[str, Rule] = {
    "init_from": _init_from,
    "model": _model,
    "multiplier": _multiplier,
    "input_size": _input_size,
    "strides": _strides,
    "preprocessing": _preprocessing,
    "augment": _augment,
    "batch_size": _batch_size,
    "drop_last": _drop_last,
    "epochs": _epochs,
    "freeze": _freeze,
    "progressive_sizes": _progressive_sizes,
    "progressive_epochs": _progressive_epochs,
    "lr": _lr,
    "warmup_epochs": _warmup,
    "ema_decay": _ema_decay,
    "weight_decay": lambda facts, known: Choice(5e-4, "few images"),
    "label_smoothing": lambda facts, known: Choice(0.1, "usual value"),
    "precision": lambda facts, known: Choice("auto", "the faster precision"),
}
# Settings to choose again when the number of epochs changes.
FOLLOW_EPOCHS = {"freeze", "progressive_sizes", "progressive_epochs", "warmup_epochs", "ema_decay"}
