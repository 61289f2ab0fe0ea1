"""Networks by name, with random initialization, released weights or weights of other projects."""

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

# Order of preference among several weights of one network, from diverse to narrow data sets.
DEFAULTS = ("imagenet", "tinyimagenet", "cifar100", "cifar10", "digits")
PHOTOS = DEFAULTS[:2]  # data sets of photographs, suitable as a start for other photographs


class ListedWeights(NamedTuple):
    """Row of `igcv models --pretrained`.

    Attributes:
        name: name of the weights, NETWORK.DATA.
        top1, top5: accuracy in percent; None if unknown.
        source: source of the accuracy.
        megabytes: size of the file, in MB.
        license: license of the weights.
        place: "igcv" for weights that come with igcv, "cache", or the host of the download.
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
        name: a name of the catalog (see `igcv.models.build_model`); with `pretrained`, also the name of weights,
            NETWORK.DATA (`igcv models --pretrained` lists them).
        num_classes: number of classes; 0 returns pooled features. None: 1000, or the classes of the weights. If the
            number differs from the weights, the classifier is new, for fine-tuning.
        multiplier: width multiplier; replaces the multiplier in the name. Not with `pretrained`.
        input_size: side of the square input images, in pixels; None: the size of the network or of the weights.
        pretrained: True loads trained weights. If a network has several, the order of preference is imagenet,
            tinyimagenet, cifar100, cifar10, digits. A string names the data set. The first use of weights of other
            projects downloads them.
        options: `in_chans`, `global_pool`, `drop_rate`, `drop_path_rate`, `output_stride`, `strides` (see
            `igcv.models.Options`). With `pretrained`, at the input size of the weights, the default strides are the
            strides of the weights.

    Raises:
        InputError: if the name or the weights are unknown, the numbers in the name define no valid network, or the
            download fails.

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
    """Return the names of all weights, NETWORK.DATA: weights that come with igcv, and downloadable weights."""
    return sorted({*released_weights(), *KNOWN})


def list_weights() -> list[ListedWeights]:
    """Return a row for each named weights file."""
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
    """Return the name of released weights trained on photographs, or None if there are none.

    Args:
        models: networks in order of preference; by default, any network.
    """
    known = released_weights()
    for model in models or sorted({name.rpartition(".")[0] for name in known}):
        for data in PHOTOS:
            if f"{model}.{data}" in known:
                return f"{model}.{data}"
    return None


def find_weights(name: str) -> str:
    """Return the full name of the weights of a network, without downloading them.

    Args:
        name: NETWORK.DATA, or NETWORK, which selects the first available data set in `DEFAULTS`.

    Raises:
        InputError: if there are no such weights, or several and none is the default.
    """
    known = weights_names()
    names = [name, *(f"{name}.{data}" for data in DEFAULTS)]
    found = [each for each in names if each in known] or [n for n in known if n.rpartition(".")[0] == name]
    if not found:
        raise unknown("weights", name, known, f"one of: {', '.join(known)}")
    if found[0] not in names and len(found) > 1:
        raise InputError(f"several weights of {name}: {', '.join(found)}. Give one of these names.")
    return found[0]


def weights_path(name: str) -> Path:
    """Return the file of named weights. The first call downloads and converts weights of other projects.

    Args:
        name: NETWORK.DATA, or NETWORK (see `find_weights`).

    Raises:
        InputError: if the name is unknown or ambiguous.
        igcv.weights.download.NotAtHandError: if the weights are not in the cache, and the download fails.
    """
    name = find_weights(name)
    if file := released_weights().get(name):
        return file
    file = cached_file(name)
    if not file.is_file():
        with alone(file):
            if not file.is_file():  # another process may have written it
                _convert(name, KNOWN[name], file)
    return file


def cached_file(name: str) -> Path:
    """Return the path in the cache for downloadable weights. The path includes the checksum."""
    return weights_folder() / f"{name}-{KNOWN[name].checksum.partition(':')[2][:8]}.safetensors"


def _convert(name: str, known: Known, target: Path) -> None:
    """Download and convert named weights."""
    with fetched(name, known) as source:
        read = mxnet.read_checkpoint if known.project == "mxnet" else torch_files.read_checkpoint
        network, card = read(source)
    save_weights(target, network.state_dict(), known_card(card, known))


def read_torch(
    file: Path, input_size: int | None = None, strides: Sequence[int] | None = None
) -> tuple[Network, Card]:
    """Return the network and the card of a file of pytorchcv, torchvision or timm.

    The checksum identifies the files in `KNOWN`. `igcv.from_torch` describes the arguments and errors.
    """
    if file.suffix == ".zip":
        with tempfile.TemporaryDirectory() as folder:
            target = Path(folder) / file.with_suffix("").name
            return read_torch(unzipped(file, target, torch_files.MAX_BYTES), input_size, strides)
    if not file.is_file():
        raise InputError(f"file not found: '{file}'. Give a .pth file of pytorchcv, torchvision or timm.")
    if file.suffix == ".safetensors" and CARD_KEY in read_metadata(file):
        raise InputError(
            f"'{file}' already has weights of igcv. To write an MXNet checkpoint, give OUT.params."
        )
    network, card = torch_files.read_checkpoint(file, input_size, strides)
    return network, identified(card, file)


def identified(card: Card, file: Path) -> Card:
    """Return the card of a converted file, completed from `KNOWN` if its checksum is known."""
    known = known_file(file)
    return known_card(card, known) if known else card


def known_file(file: Path) -> Known | None:
    """Return the row of `KNOWN` with the checksum of a file, or None."""
    kinds = {known.checksum.partition(":")[0] for known in KNOWN.values()}
    found = {kind: digest(file, kind) for kind in kinds}
    for known in KNOWN.values():
        kind, _, expected = known.checksum.partition(":")
        if found[kind].startswith(expected):
            return known
    return None


def known_card(card: Card, known: Known) -> Card:
    """Return the card of a converted file with the classes, preprocessing, license and accuracy of a row."""
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
    """Return the names and the synsets of the 1,000 ImageNet classes, in label order.

    A name is the first word of the synset. If two synsets have the same first word, the name includes the other words
    or the synset.
    """
    from timm.data import ImageNetInfo  # the import takes seconds

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
    """Return the file of named weights; if unavailable, the error names released weights of the network."""
    try:
        return weights_path(name)
    except NotAtHandError as error:
        model = name.partition(".")[0]
        others = [each.partition(".")[2] for each in released_weights() if each.partition(".")[0] == model]
        if not others:
            raise
        raise InputError(f'{error}. Or use pretrained="{others[0]}", which comes with igcv') from error
