"""Networks by name, with random weights, with released ones, or with those of other projects."""

import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from igcv.errors import InputError, unknown
from igcv.models import Network, build_model
from igcv.weights.card import CARD_KEY, Card
from igcv.weights.download import NotAtHandError, alone, digest, fetched, unzipped, weights_folder
from igcv.weights.files import fill, load_weights, read_card, read_metadata, save_weights
from igcv.weights.foreign import mxnet, torch_files
from igcv.weights.known import KNOWN, Known
from igcv.weights.released import released_weights

# Of several weights of one network the first of these is the default: the one that has seen most kinds of images.
DEFAULTS = ("imagenet", "tinyimagenet", "cifar100", "cifar10", "digits")
PHOTOS = DEFAULTS[:2]  # the data sets of photographs, from which a network for other photographs can start


class ListedWeights(NamedTuple):
    """What `igcv models --pretrained` shows of weights.

    Attributes:
        name: NETWORK.DATA.
        top1, top5: accuracy in percent; None where the card has none.
        source: who measured it.
        megabytes: size of the file.
        license: of the weights.
        place: "igcv" for those that come with it, "cache", or the host to download from.
    """

    name: str
    top1: float | None
    top5: float | None
    source: str
    megabytes: float
    license: str
    place: str


def create_model(
    name: str,
    num_classes: int | None = None,
    multiplier: float | None = None,
    input_size: int | None = None,
    *,
    pretrained: bool | str = False,
    **options: Any,
) -> Network:
    """Build a network by name.

    Args:
        name: a name of the catalog (see `igcv.models.build_model`); with `pretrained` also NETWORK.DATA, the name of
            weights (`igcv models --pretrained`).
        num_classes: outputs; 0 returns pooled features. None: 1000, or those of the weights. Another number
            than theirs gives a new classifier, for fine-tuning.
        multiplier: width multiplier, instead of the one in the name; not with `pretrained`.
        input_size: side in pixels of the square images to come; None: the network's own, or the weights'.
        pretrained: True fills it with trained weights, of several weights of the network with the first of imagenet,
            tinyimagenet, cifar100, cifar10 and digits; a text names the data set. Weights of other projects are
            downloaded once.
        options: `in_chans`, `global_pool`, `drop_rate`, `strides` (see `igcv.models.Options`). With `pretrained`, at
            the input size of the weights, strides are theirs unless given.

    Raises:
        InputError: for an unknown name, numbers that make no network, or weights that there are not or that cannot
            be downloaded.

    >>> create_model("igcv3_d_100", num_classes=10).num_features
    1280
    """
    if not pretrained:
        return build_model(
            name, 1000 if num_classes is None else num_classes, multiplier, input_size, **options
        )
    file = _file_or_others(find_weights(name if pretrained is True else f"{name}.{pretrained}"))
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


def weights_names() -> list[str]:
    """The names of all weights, NETWORK.DATA, of those that come with igcv and of those that can be downloaded."""
    return sorted({*released_weights(), *KNOWN})


def list_weights() -> list[ListedWeights]:
    """All weights that have a name, and what is known of them."""
    released = released_weights()
    rows = []
    for name in weights_names():
        if file := released.get(name):
            results = read_card(file).results
            top1, top5 = results.get("top1"), results.get("top5")
            source = f"measured on {results.get('data', 'unknown images')}"
            rows.append(
                ListedWeights(name, top1, top5, source, file.stat().st_size / 1e6, "Apache-2.0", "igcv")
            )
        else:
            known = KNOWN[name]
            place = "cache" if cached_file(name).is_file() else known.host
            rows.append(
                ListedWeights(
                    name, known.top1, known.top5, known.source, known.megabytes, known.license, place
                )
            )
    return rows


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


def find_weights(name: str) -> str:
    """Return the full name of the weights of a network; whether they can be downloaded plays no part.

    Args:
        name: NETWORK.DATA, or NETWORK alone: of several weights the first data set in `DEFAULTS` counts.

    Raises:
        InputError: there are none, or several of which none is the default.
    """
    known = weights_names()
    names = [name, *(f"{name}.{data}" for data in DEFAULTS)]
    found = [each for each in names if each in known] or [n for n in known if n.rpartition(".")[0] == name]
    if not found:
        raise unknown("weights", name, known, f"there are {', '.join(known)}")
    if found[0] not in names and len(found) > 1:
        raise InputError(f"there are several weights of {name}; name one: {', '.join(found)}")
    return found[0]


def weights_path(name: str) -> Path:
    """The file of the weights of a name, which are downloaded and converted the first time.

    Args:
        name: NETWORK.DATA, as in `weights_names`.

    Raises:
        InputError: there are none of the name.
        igcv.weights.download.NotAtHandError: they are not in the cache, and the network gives none.
    """
    if (released := released_weights()) and name in released:
        return released[name]
    if name not in KNOWN:
        raise unknown("weights", name, weights_names(), "igcv models --pretrained lists them")
    file = cached_file(name)
    if not file.is_file():
        with alone(file):
            if not file.is_file():  # another process may have been here
                _convert(name, KNOWN[name], file)
    return file


def cached_file(name: str) -> Path:
    """Where the weights of a name are, or will be once they are downloaded; another checksum is another file."""
    return weights_folder() / f"{name}-{KNOWN[name].checksum.partition(':')[2][:8]}.safetensors"


def _convert(name: str, known: Known, target: Path) -> None:
    """Fetch and convert the weights of a name."""
    with fetched(name, known) as source:
        read = mxnet.read_checkpoint if known.project == "mxnet" else torch_files.read_checkpoint
        network, card = read(source)
    save_weights(target, network.state_dict(), known_card(card, known))


def read_torch(
    file: Path, input_size: int | None = None, strides: Sequence[int] | None = None
) -> tuple[Network, Card]:
    """Return the network and the card of a file of pytorchcv, torchvision or timm.

    A file that has a name here is known by its checksum. Args and errors: those of `igcv.from_torch`.
    """
    if file.suffix == ".zip":
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / file.with_suffix("").name
            return read_torch(unzipped(file, target, torch_files.MAX_BYTES), input_size, strides)
    if not file.is_file():
        raise InputError(f"there is no file {file}; give a .pth file of pytorchcv, torchvision or timm")
    if file.suffix == ".safetensors" and CARD_KEY in read_metadata(file):
        raise InputError(
            f"{file} holds weights of igcv already; give OUT.params to write an MXNet checkpoint"
        )
    network, card = torch_files.read_checkpoint(file, input_size, strides)
    return network, identified(card, file)


def identified(card: Card, file: Path) -> Card:
    """Return the card of a converted file, with what is known of the file if its checksum has a name here."""
    known = known_file(file)
    return known_card(card, known) if known else card


def known_file(file: Path) -> Known | None:
    """The row of `KNOWN` whose checksum a file has; None if none has it."""
    kinds = {known.checksum.partition(":")[0] for known in KNOWN.values()}
    found = {kind: digest(file, kind) for kind in kinds}
    for known in KNOWN.values():
        kind, _, expected = known.checksum.partition(":")
        if found[kind].startswith(expected):
            return known
    return None


def known_card(card: Card, known: Known) -> Card:
    """Add to the card of a converted file what is known of it: classes, preprocessing, license and accuracy."""
    names, ids = imagenet_classes()
    published = {"top1": known.top1, "top5": known.top5, "by": known.source}
    source = {"url": known.url, "checksum": known.checksum, "license": known.license, "published": published}
    return replace(
        card,
        class_names=names,
        class_ids=ids,
        preprocessing=replace(known.preprocessing, input_size=card.input_size).to_dict(),
        source={**source, "format": known.project},
    )


def imagenet_classes() -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The names of ImageNet's 1,000 classes and their synsets, in label order.

    A name is the first of the synset's words; the few that two synsets share are followed by the other words or by
    the synset.
    """
    from timm.data import ImageNetInfo  # takes seconds, which only a conversion needs

    info = ImageNetInfo()
    ids, words = info.label_names(), info.label_descriptions()
    names = [entry.split(",")[0] for entry in words]
    names = [entry if names.count(name) > 1 else name for name, entry in zip(names, words, strict=True)]
    unique = [
        f"{name} ({synset})" if names.count(name) > 1 else name
        for name, synset in zip(names, ids, strict=True)
    ]
    return tuple(unique), tuple(ids)


def _file_or_others(name: str) -> Path:
    """The file of weights; where it is not at hand the error names the other weights of the network."""
    try:
        return weights_path(name)
    except NotAtHandError as error:
        model = name.partition(".")[0]
        others = [each.partition(".")[2] for each in released_weights() if each.partition(".")[0] == model]
        if not others:
            raise
        raise InputError(f'{error}. Or take pretrained="{others[0]}", which comes with igcv') from error
