"""Trained networks with their class names, preprocessing and origin."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from igcv.data.classes import NAME, KnownClasses, matched
from igcv.data.given import ImageLike, as_list, name_of, open_image
from igcv.data.preprocessing import Preprocessing, Transform, eval_transform
from igcv.data.sources.listed import SplitList, read_list
from igcv.data.sources.open import DataSource, open_source
from igcv.data.sources.parts import Rule
from igcv.data.sources.spec import same_source
from igcv.engines.opened import EngineModule, card_of, is_exported, note_of, open_session, takes_pixels
from igcv.errors import InputError, unknown
from igcv.models import Network, build_model
from igcv.renamed import old_argument
from igcv.weights.card import Card
from igcv.weights.files import fill, load_weights
from igcv.weights.pretrained import weights_names, weights_path

LAST, BEST = "last.safetensors", "best.safetensors"  # weights in a run folder
HUB = "model.safetensors"  # weights in a folder for timm and the Hugging Face Hub
RECIPE, SPLIT = "recipe.toml", "split.csv"  # settings of the run, and its split of the images


class Prediction(NamedTuple):
    """A predicted class of an image: label, class name, and probability from 0 to 1."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with its card; `igcv.load` makes one.

    Attributes:
        model: the network; for an exported file, a module that runs its inference engine.
        card: the metadata of the network; see `igcv.weights.card.Card`.
        folder: the run folder of the weights; None for weights outside a run folder.
    """

    model: Network
    card: Card
    folder: Path | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """The preprocessing from an image to the network's input."""
        return Preprocessing.from_dict(self.card.preprocessing)

    @property
    def transform(self) -> Transform:
        """The transform from a PIL image to the network's input, shape (3, S, S)."""
        return eval_transform(self.preprocessing)

    @property
    def class_names(self) -> Sequence[str]:
        """Class names in label order; the labels as text if the card has no names."""
        return self.card.names

    @property
    def note(self) -> str:
        """A note on the results of an exported file, if its engine cannot run it here; otherwise empty."""
        return self.model.note if isinstance(self.model, EngineModule) else ""

    @property
    def known_classes(self) -> KnownClasses:
        """The class names and ids that match classes of a data source to the network's."""
        namings = (self.card.class_names, self.card.class_ids)
        return KnownClasses(self.card.num_classes, tuple(filter(None, namings)))

    def labeled(self, source: DataSource, match: str = NAME) -> DataSource:
        """Return a source with the network's labels.

        Args:
            source: the data source.
            match: how to match its classes to the network's: "name" or "order".

        Raises:
            InputError: the classes of the source do not match the network's.
        """
        return matched(source, self.known_classes, match)

    def open_data(
        self, spec: str | None = None, download: bool = True, split: str | Path | None = None
    ) -> DataSource:
        """Open a data source, by default the one of the training run.

        The source of the training run is split as in training (see `own_split`): no validation image is a training
        image. In any other source without a validation part, all images are validation images.

        Args:
            spec: a data source, as for `igcv.data.sources.open.open_source`.
            download: download missing files.
            split: a list of the images that replaces the split of the training run.

        Raises:
            InputError: the source cannot be opened, or neither `spec` nor the card names a source.
        """
        recipe = self.card.recipe
        own = str(recipe.get("data") or "")
        wanted = spec or own
        if not wanted:
            raise InputError(
                "the network's card names no training data. Give images with --data, or with --calibrate to quantize"
            )
        seed = 0 if own and same_source(wanted, own) else None
        rule = split or (Rule.HASH if seed is None else own_split(recipe, self.folder))
        source = open_source(wanted, seed, download=download, split=rule)
        named = recipe.get("data_name") if seed == 0 else ""
        return replace(source, name=str(named)) if named else source

    def predict(self, images: ImageLike | Iterable[ImageLike], top: int = 5) -> list[list[Prediction]]:
        """Classify images.

        Args:
            images: one or several images: paths of image files, PIL images, RGB arrays uint8 (H, W, 3), bytes of
                image files, or binary file objects.
            top: number of top predictions per image, most probable first.

        Returns:
            One list of predictions per image, also for a single image.

        Raises:
            InputError: a file is missing or not a readable image, or an argument is not an image.
        """
        device = next(self.model.parameters()).device
        answers: list[list[Prediction]] = []
        for number, image in enumerate(as_list(images)):
            pixels = self.transform(open_image(image, name_of(image, number))).unsqueeze(0).to(device)
            with torch.inference_mode():
                answers += self.ranked(self.model(pixels).softmax(-1), top)
        return answers

    def ranked(self, probabilities: Tensor, top: int) -> list[list[Prediction]]:
        """Return the `top` most probable classes of each image from probabilities of shape (N, num_classes)."""
        values, labels = probabilities.topk(min(top, probabilities.shape[1]))
        names = self.class_names
        return [
            [Prediction(label, names[label], value) for value, label in zip(*row, strict=True)]
            for row in zip(values.tolist(), labels.tolist(), strict=True)
        ]


def own_split(recipe: Mapping[str, Any], folder: Path | None) -> SplitList | Rule:
    """Return the split of a training run's images: the list in its run folder, else the split of its recipe.

    Args:
        recipe: the settings of the run.
        folder: the run folder; None if only the weights are available.
    """
    given = str(recipe.get("split") or "")
    if folder is not None and (folder / SPLIT).is_file():
        return read_list(folder / SPLIT, kept=True, whole=bool(given))
    if given:
        return read_list(given, kept=True)
    return Rule.HASH if "split" in recipe else Rule.POSITION


def weights_file(path: str | Path) -> Path:
    """Return the weights file of a path: the file itself, or the weights of a folder.

    A run folder has its best and last weights, a folder for timm has one weights file.

    If the path does not exist but is the name of weights, download the weights on first use.
    """
    path = Path(path)
    if not path.exists() and _is_name(path):
        return weights_path(str(path))
    if not path.is_dir():
        return path
    for name in (BEST, LAST, HUB):
        if (path / name).is_file():
            return path / name
    raise InputError(f"no weights in '{path}', expected {BEST} or {LAST}. Give a run folder of igcv train")


def _is_name(path: Path) -> bool:
    """Return whether a path that does not exist is the name of weights.

    Raises:
        InputError: the path resembles the name of weights.
    """
    names, given = weights_names(), str(path)
    if given in names:
        return True
    near = any(name.startswith(f"{given}.") for name in names) or get_close_matches(given[:99], names, 1, 0.8)
    if near and path.suffix != ".safetensors" and path.parent == Path():
        raise unknown("weights", given, names, "igcv models --pretrained lists them")
    return False


@old_argument("path", "what", renamed_in="0.2")
def load(what: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """Open a trained network.

    Args:
        what: a run folder, a folder for timm (see `igcv.convert`), a .safetensors file written by igcv, a file written
            by `igcv.export` (for Core ML a folder, .mlpackage), or the name of weights, e.g. igcv3_d_100.imagenet
            (`igcv models --pretrained`), which are downloaded once.
        device: device of a PyTorch network; engines run exported files on the CPU.

    Raises:
        InputError: the network does not exist or cannot be downloaded, its weights do not fit the network that its
            card names, or the engine of an exported file is not installed.
    """
    what = Path(os.path.expanduser(what))
    if is_exported(what):
        return _opened(what)
    file = weights_file(what)
    tensors, card = load_weights(file)
    model = network_of(card)
    fill(model, tensors, str(file))
    return Classifier(model.to(device).eval(), card, _run_folder(file))


def _run_folder(file: Path) -> Path | None:
    """Return the run folder that contains a file; None if the file is outside a run folder."""
    return file.parent if (file.parent / RECIPE).is_file() else None


def _opened(file: Path) -> Classifier:
    """Return a classifier that runs an exported file."""
    if not file.exists():
        raise InputError(
            f"file not found: '{file}'. Give a run folder, a .safetensors file or a file of igcv export"
        )
    session = open_session(file)
    card = card_of(session, file)
    pre = Preprocessing.from_dict(card.preprocessing) if takes_pixels(card) else None
    engine: Any = EngineModule(session, pre, note_of(file))  # a module, but not a catalog network
    return Classifier(engine, card, _run_folder(file))


def as_classifier(network: "Classifier | str | Path", device: str | torch.device = "cpu") -> Classifier:
    """Return the classifier itself, or load it."""
    return network if isinstance(network, Classifier) else load(network, device)


def as_trained(network: "Classifier | str | Path") -> Classifier:
    """Return a classifier with a PyTorch network, which can be folded and exported.

    Raises:
        InputError: the network is an exported file, or was loaded from one.
    """
    if isinstance(network, Classifier):
        name, exported = "the network", isinstance(network.model, EngineModule)
    else:
        name, exported = f"'{network}'", is_exported(network)
    if exported:
        raise InputError(
            f"{name} is an exported file. Give the run folder or weights that it was exported from"
        )
    return as_classifier(network)


def network_of(card: Card) -> Network:
    """Return the network of a card, on the device "meta": its size is unchecked, so no memory is allocated yet."""
    with torch.device("meta"):
        return build_model(
            card.model, card.num_classes, card.multiplier, card.input_size, strides=card.strides or None
        )
