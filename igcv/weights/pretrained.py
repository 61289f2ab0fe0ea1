"""Networks by name, with random weights or with released ones, which come with the package."""

from pathlib import Path
from typing import Any

from igcv.errors import InputError, unknown
from igcv.models import Network, build_model
from igcv.weights import load_weights
from igcv.weights.files import fill

_PACKAGE = Path(__file__).parents[1]
# Of several releases of one network the first of these is the default: the one that has seen most kinds of images.
DEFAULTS = ("imagenet", "tinyimagenet", "cifar100", "cifar10", "digits")
PHOTOS = DEFAULTS[:2]  # the data sets of photographs, from which a network for other photographs can start
PLACES = (_PACKAGE / "released", _PACKAGE.parent / "released")  # installed, and in a checkout


def create_model(
    name: str,
    num_classes: int | None = None,
    multiplier: float | None = None,
    input_size: int | None = None,
    *,
    pretrained: bool = False,
    **options: Any,
) -> Network:
    """Build a network by name.

    Args:
        name: a name of the catalog (see `igcv.models.build_model`); with `pretrained` also NETWORK.DATA, the name of
            released weights (`igcv.weights.released_weights`). Of several releases of NETWORK the first of imagenet,
            tinyimagenet, cifar100, cifar10 and digits is the default.
        num_classes: outputs; 0 returns pooled features. None: 1000, or those of the released weights. Another number
            than theirs gives a new classifier, for fine-tuning.
        multiplier: width multiplier, instead of the one in the name; not with `pretrained`.
        input_size: side in pixels of the square images to come; None: the network's own, or the weights'.
        pretrained: fill it with released weights; nothing is downloaded.
        options: `in_chans`, `global_pool`, `drop_rate`, `strides` (see `igcv.models.Options`). With `pretrained`, at
            the input size of the weights, strides are theirs unless given.

    Raises:
        InputError: for an unknown name, numbers that make no network, or weights that were not released.

    >>> create_model("igcv3_d_100", num_classes=10).num_features
    1280
    """
    if not pretrained:
        return build_model(
            name, 1000 if num_classes is None else num_classes, multiplier, input_size, **options
        )
    file = find_released(name)
    tensors, card = load_weights(file)
    width = card.multiplier if multiplier is None else multiplier
    size = input_size or card.input_size
    if size == card.input_size:
        options = {"strides": card.strides or None, **options}
    network = build_model(card.model, card.num_classes, width, size, **options)
    fill(network, tensors, str(file))
    if num_classes is not None and num_classes != card.num_classes:
        network.reset_classifier(num_classes)
    return network


def released_weights() -> dict[str, Path]:
    """The released weights files by their names, NETWORK.DATA, such as "igcv3_w_025.digits"."""
    return {file.stem: file for place in PLACES for file in sorted(place.glob("*.safetensors"))}


def photo_weights(*models: str) -> str | None:
    """Return the name of released weights that know photographs: of the first of some networks that has any.

    Without networks, of any network. None if there are none.
    """
    known = released_weights()
    for model in models or sorted({name.rpartition(".")[0] for name in known}):
        for data in PHOTOS:
            if f"{model}.{data}" in known:
                return f"{model}.{data}"
    return None


def find_released(name: str) -> Path:
    """Return the released weights of a network.

    Args:
        name: NETWORK.DATA, or NETWORK alone: of several releases the first data set in `DEFAULTS` counts.

    Raises:
        InputError: there are none, or several of which none is the default.
    """
    files = released_weights()
    names = [name, *(f"{name}.{data}" for data in DEFAULTS)]
    found = [known for known in names if known in files] or [n for n in files if n.rpartition(".")[0] == name]
    if not found:
        raise unknown("released weights", name, files, f"there are {', '.join(files) or 'none'}")
    if found[0] not in names and len(found) > 1:
        raise InputError(f"there are several released weights of {name}; name one: {', '.join(found)}")
    return files[found[0]]
