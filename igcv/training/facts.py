"""Facts for the choice of settings: the images, the device, and the initial weights."""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from igcv.classifier import weights_file
from igcv.data import BadImageError, DataSource, Images, StreamImages
from igcv.errors import InputError
from igcv.machine.processes import Process, first_on_machine, from_main
from igcv.training.recipe import NO_START
from igcv.weights import load_weights
from igcv.weights.card import Card
from igcv.weights.known import KNOWN, Known
from igcv.weights.pretrained import cached_file, photo_weights, weights_path

SEEN = 32  # images whose sizes are read
SMALL_SIDE = 64  # pixels; square images up to this size are used at their own size
GPU_SIDE = 224  # pixels of photos on a GPU
FEWEST_EPOCHS = 30
CPU_IMAGES_PER_S = 150  # a guess before the speed is measured
START_IMAGES_PER_S = 20  # the same for igcv3_d_100 from ImageNet weights, at 128 pixels

Settings = Mapping[str, Any]


class Start(NamedTuple):
    """Initial weights by their name for init_from, with the reason for the choice."""

    name: str
    reason: str


@dataclass(frozen=True)
class Facts:
    """Facts for the rules of `igcv.training.auto`.

    Attributes:
        images: number of training images.
        side: typical shorter side of the images in pixels.
        squares: whether all images are squares of one size.
        gpu: whether the training has a GPU.
        processes: number of processes that share a batch.
        start: card of the initial weights; None: random initialization.
        start_name: name of the initial weights for init_from.
        start_reason: reason for these weights, or for random initialization.
    """

    images: int
    side: int
    squares: bool
    gpu: bool
    processes: int = 1
    start: Card | None = None
    start_name: str = NO_START
    start_reason: str = "no weights trained on photos are available"

    @property
    def small(self) -> bool:
        """Return whether the images are small squares, not photos."""
        return self.squares and self.side <= SMALL_SIDE


def facts_of(source: DataSource, process: Process, given: Settings) -> Facts:
    """Return the facts about a source, the processes of a training, and the available initial weights."""
    assert source.train is not None
    squares = source.image_size is not None
    side = source.image_size or typical_side(source.train)
    facts = Facts(len(source.train), side, squares, process.device.type != "cpu", process.world_size)
    start = from_main(
        start_for(facts, given) if process.is_main else None
    )  # the same weights in all processes
    assert start is not None
    if start.name == NO_START:
        return replace(facts, start_reason=start.reason)
    card = load_weights(first_on_machine(process, lambda: weights_file(start.name)))[1]
    return replace(facts, start=card, start_name=start.name, start_reason=start.reason)


def start_for(facts: Facts, given: Settings) -> Start:
    """Return the initial weights: init_from if given, else weights trained on photos, else "none".

    ImageNet weights come first and are downloaded once. If they are unavailable, weights that come with igcv are used.
    """
    if name := given.get("init_from"):
        return Start(str(name), "")
    if facts.small or "multiplier" in given:
        return Start(NO_START, Facts.start_reason)
    wanted = given.get("model")
    why_not = ""
    name = f"{wanted or start_model(facts, given)}.imagenet"
    if name in KNOWN:
        cached = cached_file(name).is_file()
        try:
            weights_path(name)
            return Start(name, _reason(KNOWN[name], cached))
        except InputError as error:
            why_not = f"; {name} is not available: {getattr(error, 'reason', error)}"
    found = photo_weights(wanted) if wanted else photo_weights(usual_model(facts)) or photo_weights()
    if found:
        return Start(found, f"trained on photos; init_from=none starts from random weights{why_not}")
    return Start(NO_START, f"{Facts.start_reason}{why_not}")


def _reason(known: Known, cached: bool) -> str:
    """Return the origin of ImageNet weights, and how to train without them."""
    random = "init_from=none starts from random weights"
    if cached:
        return f"trained on ImageNet, from the cache; {random}"
    origin = f"{known.megabytes:.1f} MB from {known.host}, downloaded once"
    return f"trained on ImageNet, {origin}; {random}, IGCV_OFFLINE=1 disables downloads"


def usual_model(facts: Facts) -> str:
    """Return the default network for training from random weights."""
    return "igcv3_d_100" if facts.gpu else "igcv3_d_p50"


def start_model(facts: Facts, given: Settings) -> str:
    """Return the default network for training from ImageNet weights: the large one on a GPU or with enough time."""
    seconds = 60 * given.get("max_minutes", 0)
    enough = seconds * START_IMAGES_PER_S >= FEWEST_EPOCHS * facts.images
    return "igcv3_d_100" if facts.gpu or enough else "igcv3_d_050"


def typical_side(images: Images | StreamImages) -> int:
    """Return the median shorter side of some images, in pixels; for a stream, the default side of photos."""
    if isinstance(images, StreamImages):
        return GPU_SIDE
    sides = []
    for i in np.unique(np.linspace(0, len(images) - 1, SEEN).astype(int)):
        try:
            sides.append(min(images[int(i)][0].size))
        except BadImageError:  # reported when the training reads the image
            continue
    return int(median(sides)) if sides else GPU_SIDE
