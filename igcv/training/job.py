"""Resolution of a recipe against the data, the network and the machine."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from igcv.classifier import Classifier, load
from igcv.data import BATCHED, StreamImages
from igcv.data.classes import ORDER
from igcv.data.preprocessing import PRESETS, Preprocessing
from igcv.data.sources.open import DataSource, open_source
from igcv.data.sources.parts import Rule
from igcv.errors import InputError
from igcv.machine.processes import Process, first_on_machine, from_main, gather
from igcv.machine.threads import available_cores
from igcv.models import build_model, default_input_size, strides_text
from igcv.training.auto import FOLLOW_EPOCHS, Choice, choose
from igcv.training.balance import check_balance
from igcv.training.classes import check_classes
from igcv.training.draft import Draft
from igcv.training.facts import Facts, Settings, facts_of
from igcv.training.graphs import hindrance as hindrance_of_graphs
from igcv.training.kept import KeptRun, going_on_with
from igcv.training.recipe import Recipe
from igcv.weights.card import Card

WORTH_WORKERS = 5000  # images; for fewer, starting worker processes takes longer than it saves
RESIDENT_SHARE = 0.25  # share of a GPU's free memory that resident = auto may use
RESIDENT_BYTES = 2 * 2**30  # the same limit in bytes on other devices


@dataclass(frozen=True)
class Job:
    """A resolved run: recipe, data, device and initial weights."""

    recipe: Recipe
    source: DataSource
    preprocessing: Preprocessing
    process: Process
    batch_size: int  # images of a micro-batch in one process
    graphs: bool  # whether optimizer steps become CUDA graphs
    workers: int
    start: Classifier | None  # initial weights; None: random initialization, or a resumed run
    start_labels: tuple[int, ...] | None = None  # labels in `start`; None: new classifier
    why_precision: str = ""  # reason for the choice of precision = "auto"; empty if the recipe sets it
    chosen: Mapping[str, Choice] = field(default_factory=dict)  # chosen settings with reasons
    draft: tuple[Facts, Settings] | None = None  # facts and given settings; None for an explicit recipe
    expected_s: float | None = None  # expected seconds of the training; None: not measured

    def at(self, epoch: int) -> "Job":
        """Return the job with the preprocessing of `epoch` (from 0), whose images may be smaller."""
        size = self.recipe.size_at(epoch)
        return replace(self, preprocessing=replace(self.preprocessing, input_size=size))


def resolve(recipe: Recipe | Draft, process: Process, kept: KeptRun | None = None) -> Job:
    """Open data and weights, fill in the open settings, and check all settings.

    Args:
        recipe: a recipe or a draft.
        process: this process.
        kept: split and data record of the run to resume, which has a state and needs no initial weights.

    Raises:
        InputError: a setting does not suit the data, the network or the processes.
    """
    chosen: Mapping[str, Choice] = {}
    draft = None
    if isinstance(recipe, Draft):
        source = open_data(recipe.recipe, process, kept)
        draft = (facts_of(source, process, recipe.given), recipe.given)
        chosen = choose(*draft)
        recipe = recipe.filled({key: choice.value for key, choice in chosen.items()})
        check_process(recipe, process)
    else:
        check_process(recipe, process)
        source = open_data(recipe, process, kept)
    assert source.train is not None
    check_balance(recipe, source)
    check_epochs(recipe, source)
    start = load(recipe.start) if recipe.start and kept is None else None
    batch_size = recipe.batch_size // (process.world_size * recipe.accumulation)
    if (recipe.mixup or recipe.cutmix) and min(batch_size, len(source.train) // process.world_size) < 2:
        raise InputError("mixup and cutmix need at least two images per process and micro-batch")
    native = source.image_size or default_input_size(recipe.model)
    size = recipe.input_size or min(native, default_input_size(recipe.model))
    preset = PRESETS[recipe.preprocessing]
    resident = from_main(is_resident(recipe, source, size, process.device))
    crop = 1.0 if source.image_size is not None and source.image_size <= size else preset.crop
    strides = choose_strides(recipe, size, start.card if start else None)
    check_sizes(recipe.progressive_sizes, strides)
    recipe = replace(recipe, input_size=size, strides=strides, resident="on" if resident else "off")
    check_single_images(recipe, batch_size, len(source.train), process)
    return Job(
        recipe=recipe,
        source=source,
        preprocessing=replace(preset, input_size=size, crop=crop),
        process=process,
        batch_size=batch_size,
        graphs=has_graphs(recipe, process),
        workers=_workers(recipe.workers, process, len(source.train), resident),
        start=start,
        start_labels=start_labels(source, start, recipe.match) if start else None,
        chosen=chosen,
        draft=draft,
    )


def with_epochs(job: Job, epochs: Choice, epoch_images: int) -> Job:
    """Return a job with another number of epochs and adapt the settings that depend on it."""
    length = {"epochs": epochs.value, "epoch_images": epoch_images}
    if job.draft is None:
        warmup = min(job.recipe.warmup_epochs, epochs.value / 4)
        return replace(job, recipe=replace(job.recipe, **length, warmup_epochs=warmup))
    facts, given = job.draft
    again = choose(facts, {**vars(job.recipe), **length}, FOLLOW_EPOCHS - set(given))
    chosen = {**job.chosen, "epochs": epochs, **again}
    changes = {key: choice.value for key, choice in again.items()}
    return replace(job, recipe=replace(job.recipe, **length, **changes), chosen=chosen)


def start_labels(source: DataSource, start: Classifier, match: str) -> tuple[int, ...] | None:
    """Return the label in the initial weights for each class of the data; None if the classes differ.

    Classes are matched by name. With match=order, or if one side has no names, equal numbers of classes match in order.

    Raises:
        InputError: match is "order" and the numbers of classes differ.
    """
    known, count = start.known_classes, len(source.class_names)
    if match == ORDER and count != known.count:
        raise InputError(
            f"match=order: '{source.spec}' has {count} classes, the weights have {known.count}, expected equal "
            "numbers. Omit match to train a new classifier"
        )
    if known.named_as(source, match):
        return known.labels_of(source.class_names)
    return tuple(range(count)) if count == known.count else None


def check_process(recipe: Recipe, process: Process) -> None:
    """Raise InputError for settings that do not suit the processes or their devices."""
    parts = process.world_size * recipe.accumulation
    if recipe.batch_size % parts:
        raise InputError(
            f"batch_size: got {recipe.batch_size}, expected a multiple of {parts} ({process.world_size} processes "
            f"with accumulation = {recipe.accumulation})"
        )
    if recipe.precision == "fp16" and process.device.type == "cpu":
        raise InputError("precision=fp16 needs a GPU. On a CPU, give precision=float32 or precision=bf16")
    if recipe.sync_batch_norm and process.world_size > 1 and process.device.type != "cuda":
        raise InputError("sync_batch_norm needs GPUs. Omit it on a CPU")


def open_data(recipe: Recipe, process: Process, kept: KeptRun | None) -> DataSource:
    """Open the data of a training.

    Raises:
        InputError: no data are given, they have no training images, or they differ from those of rank 0.
    """
    if not recipe.data:
        raise InputError("no data set given. Add --data, e.g. --data digits or --data folder:PATH")
    rule = kept.split if kept else recipe.split or Rule.HASH
    source = first_on_machine(process, lambda: open_source(recipe.data, seed=0, split=rule))
    check_same(source)
    if source.train is None:
        raise InputError(f"'{source.spec}' has no training images. Give a source with a training part")
    check_classes(recipe, source)
    source = replace(source, name=recipe.data_set)
    return going_on_with(source, kept.data, recipe) if kept and kept.data else source


def check_epochs(recipe: Recipe, source: DataSource) -> None:
    """Raise InputError if epoch_images does not suit the data, or freeze does not suit the epochs."""
    if recipe.epoch_images and isinstance(source.train, StreamImages):
        raise InputError(
            f"epoch_images: got {recipe.epoch_images}, but '{source.spec}' can only be read as a stream. Omit it"
        )
    if 0 < recipe.epoch_images < recipe.batch_size:
        raise InputError(
            f"epoch_images: got {recipe.epoch_images}, expected at least batch_size = {recipe.batch_size}, or 0 (all)"
        )
    if recipe.freeze and not recipe.start:
        raise InputError(
            f"freeze: got {recipe.freeze} without init_from, so the classifier would learn from random features. Give "
            "init_from=RUN, or omit freeze"
        )
    if recipe.freeze >= recipe.epochs:
        raise InputError(
            f"freeze: got {recipe.freeze}, expected less than epochs = {recipe.epochs}. Give "
            f"freeze={recipe.epochs - 1} or less, or more epochs"
        )


def choose_strides(recipe: Recipe, input_size: int, start: Card | None) -> tuple[int, ...]:
    """Return the recipe's strides, else those of initial weights of equal input size, else the network's default."""
    with torch.device("meta"):
        network = build_model(recipe.model, 0, recipe.multiplier, input_size, strides=recipe.strides or None)
    if recipe.strides or start is None or start.input_size != input_size:
        return network.strides
    return start.strides if len(start.strides) == len(network.strides) else network.strides


def check_sizes(sizes: tuple[int, ...], strides: tuple[int, ...]) -> None:
    """Raise InputError if one of the image sizes, in pixels, is too small for a network's strides."""
    smallest = math.prod(strides)
    if sizes and min(sizes) < smallest:
        raise InputError(
            f"progressive_sizes: got {min(sizes)}, expected at least {smallest}, the product of the strides "
            f"{strides_text(strides)}. Give larger sizes"
        )


def check_single_images(recipe: Recipe, batch_size: int, images: int, process: Process) -> None:
    """Raise InputError if batch norm would get a single value per channel: one image with one output pixel.

    Args:
        recipe: recipe with resolved input_size and strides.
        batch_size: images of a micro-batch in one process.
        images: number of training images.
        process: this process.
    """
    alone = min(batch_size, images // process.world_size) < 2
    pixels = [_last_side(size, recipe.strides) for size in recipe.sizes]
    if alone and min(pixels) == 1 and not (recipe.sync_batch_norm and process.world_size > 1):
        size = recipe.sizes[pixels.index(1)]
        raise InputError(
            f"batch_size = {recipe.batch_size} with accumulation = {recipe.accumulation}, {process.world_size} "
            f"process(es) and {images} training images gives micro-batches of one image. The last layers reduce "
            f"{size} x {size} pixels to one, which is too few for batch norm. Give at least two images per process "
            "and micro-batch, or a larger input_size"
        )


def _last_side(size: int, strides: Sequence[int]) -> int:
    """Return the side in pixels of the last layers' output for images of `size` pixels."""
    for stride in strides:
        size = math.ceil(size / stride)
    return size


def is_resident(recipe: Recipe, source: DataSource, side: int, device: torch.device) -> bool:
    """Return whether the images are cached in device memory, as squares of `side` pixels.

    Raises:
        InputError: the recipe has resident = on, and the data or the augmentation do not allow it.
    """
    hindrance = _hindrance(recipe, source)
    if recipe.resident == "on" and hindrance:
        raise InputError(f"resident = on, but {hindrance}, or give resident=auto")
    if recipe.resident != "auto" or hindrance or source.image_size is None:
        return recipe.resident == "on"
    cuda = device.type == "cuda"
    room = RESIDENT_SHARE * torch.cuda.mem_get_info(device)[0] if cuda else RESIDENT_BYTES
    return resident_bytes(source, side) <= room


def has_graphs(recipe: Recipe, process: Process) -> bool:
    """Return whether optimizer steps become CUDA graphs.

    Args:
        recipe: recipe with resolved resident.
        process: this process.

    Raises:
        InputError: the recipe has cuda_graph = on, and another setting or the device does not allow it.
    """
    hindrance = hindrance_of_graphs(recipe, process.device, process.world_size)
    if recipe.cuda_graph == "on" and hindrance:
        raise InputError(f"cuda_graph = on, but {hindrance}, or give cuda_graph=auto")
    suits = recipe.resident == "on" and not recipe.compile
    return recipe.cuda_graph == "on" or (recipe.cuda_graph == "auto" and suits and not hindrance)


def resident_bytes(source: DataSource, side: int) -> int:
    """Return the bytes of all images as squares of `side` pixels with three bytes per pixel."""
    return 3 * side**2 * (len(source.train or ()) + len(source.val or ()))


def _hindrance(recipe: Recipe, source: DataSource) -> str:
    """Return the reason why the images cannot be resident, with a fix; empty if they can."""
    if isinstance(source.train, StreamImages) or isinstance(source.val, StreamImages):
        return f"'{recipe.data}' can only be read as a stream. Give the images as folder: or rec:"
    if recipe.augment not in BATCHED:
        return f"augment = {recipe.augment} works on single images. Give augment={' or '.join(BATCHED)}"
    if recipe.randaugment:
        return f"randaugment = {recipe.randaugment} works on single images. Omit it"
    return ""


def check_same(source: DataSource) -> None:
    """Raise InputError if a process has opened different data than rank 0, from a copy on another node."""
    first, *others = gather((len(source.train or ()), len(source.val or ()), source.class_names))
    for rank, other in enumerate(others, 1):
        if other != first:
            counts = [f"{len(n)} classes, {t} and {v} images" for t, v, n in (first, other)]
            raise InputError(
                f"'{source.spec}' is not the same everywhere: process 0 has {counts[0]} for training and validation, "
                f"process {rank} has {counts[1]}. Copy the same files to all nodes"
            )


def _workers(asked: int, process: Process, images: int, resident: bool) -> int:
    """Return the number of data-loading workers: `asked`, or a default if negative.

    The default is none for small sets, one on a CPU, and a share of the cores with a GPU. Resident images get a share
    of the cores on a CPU, too: their decoding ends before the training starts.
    """
    if asked >= 0:
        return asked
    if images < WORTH_WORKERS:
        return 0
    if process.device.type == "cpu" and not resident:
        return 1
    return max(1, min(8, available_cores() // process.local_world_size))
