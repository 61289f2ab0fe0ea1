"""What the choice of settings rests on: the images, the device, and the weights to start from."""

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

SEEN = 32  # images whose sizes are looked at
SMALL_SIDE = 64  # pixels; squares up to this size are trained on as they are
GPU_SIDE = 224  # pixels of photos
FEWEST_EPOCHS = 30
CPU_IMAGES_PER_S = 150  # a guess before anything is measured
START_IMAGES_PER_S = 20  # the same of igcv3_d_100 from ImageNet's weights, at 128 pixels

Settings = Mapping[str, Any]


class Start(NamedTuple):
    """Weights to start from by their name as init_from, and why these."""

    name: str
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
        start: the card of trained weights to start from; None: random weights.
        start_name: what these weights are called as init_from.
        start_reason: why the training starts from these weights, or from random ones.
    """

    images: int
    side: int
    squares: bool
    gpu: bool
    processes: int = 1
    start: Card | None = None
    start_name: str = NO_START
    start_reason: str = "no weights trained on photos are at hand"

    @property
    def small(self) -> bool:
        """Whether the images are small squares, not photos."""
        return self.squares and self.side <= SMALL_SIDE


def facts_of(source: DataSource, process: Process, given: Settings) -> Facts:
    """Look at a source, at the processes of a training, and at the weights that it can start from."""
    assert source.train is not None
    squares = source.image_size is not None
    side = source.image_size or typical_side(source.train)
    facts = Facts(len(source.train), side, squares, process.device.type != "cpu", process.world_size)
    start = from_main(start_for(facts, given) if process.is_main else None)  # all processes start alike
    assert start is not None
    if start.name == NO_START:
        return replace(facts, start_reason=start.reason)
    card = load_weights(first_on_machine(process, lambda: weights_file(start.name)))[1]
    return replace(facts, start=card, start_name=start.name, start_reason=start.reason)


def start_for(facts: Facts, given: Settings) -> Start:
    """Return the weights to start from: those given as init_from, else some that know photos; "none" without.

    ImageNet's come first, which are downloaded once; where they cannot be had, those that come with igcv.
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
            why_not = f"; {name} is not there: {getattr(error, 'reason', error)}"
    found = photo_weights(wanted) if wanted else photo_weights(usual_model(facts)) or photo_weights()
    if found:
        return Start(found, f"trained on photos; none starts from random weights{why_not}")
    return Start(NO_START, f"{Facts.start_reason}{why_not}")


def _reason(known: Known, cached: bool) -> str:
    """What ImageNet's weights are, and how to train without them."""
    random = "init_from=none starts from random weights"
    if cached:
        return f"trained on ImageNet, from the cache; {random}"
    origin = f"{known.megabytes:.1f} MB from {known.host}, downloaded once"
    return f"trained on ImageNet, {origin}; {random}, IGCV_OFFLINE=1 downloads nothing"


def usual_model(facts: Facts) -> str:
    """Return the network that is trained from random weights."""
    return "igcv3_d_100" if facts.gpu else "igcv3_d_p50"


def start_model(facts: Facts, given: Settings) -> str:
    """Return the network that is trained from ImageNet's weights: the large one where there is time for it."""
    seconds = 60 * given.get("max_minutes", 0)
    enough = seconds * START_IMAGES_PER_S >= FEWEST_EPOCHS * facts.images
    return "igcv3_d_100" if facts.gpu or enough else "igcv3_d_050"


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
