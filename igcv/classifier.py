"""A trained network with all that is needed to use it: classes, preprocessing, and where it came from."""

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
from igcv.engines.opened import EngineModule, card_of, is_exported, open_session, takes_pixels
from igcv.errors import InputError, unknown
from igcv.models import Network, build_model
from igcv.weights.card import Card
from igcv.weights.files import fill, load_weights
from igcv.weights.pretrained import weights_names, weights_path

LAST, BEST = "last.safetensors", "best.safetensors"  # the weights in a run folder
RECIPE, SPLIT = "recipe.toml", "split.csv"  # its settings, and which of its images belong to which part


class Prediction(NamedTuple):
    """One guess for one image: the class, its name, and its probability from 0 to 1."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with its card; `igcv.load` makes one.

    Attributes:
        model: the network; of an exported file its engine as a module.
        card: what it is; see `igcv.weights.card.Card`.
        folder: the run folder that it was loaded from; None for weights outside of one.
    """

    model: Network
    card: Card
    folder: Path | None = None

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become input."""
        return Preprocessing.from_dict(self.card.preprocessing)

    @property
    def transform(self) -> Transform:
        """From a PIL image to the network's input, (3, S, S)."""
        return eval_transform(self.preprocessing)

    @property
    def class_names(self) -> Sequence[str]:
        """Names in label order; numbers where none are known."""
        return self.card.class_names or tuple(str(label) for label in range(self.card.num_classes))

    @property
    def known_classes(self) -> KnownClasses:
        """The names by which classes of images are matched with the network's."""
        namings = (self.card.class_names, self.card.class_ids)
        return KnownClasses(self.card.num_classes, tuple(filter(None, namings)))

    def labelled(self, source: DataSource, match: str = NAME) -> DataSource:
        """Return a source with the network's labels, its classes matched by "name" or by "order".

        Raises:
            InputError: its classes are not the network's.
        """
        return matched(source, self.known_classes, match)

    def open_data(
        self, spec: str | None = None, download: bool = True, split: str | Path | None = None
    ) -> DataSource:
        """Open the images that `spec` names, or else those of the training run.

        Those are split as in training (see `own_split`), so that no validation image is one that the network has learnt
        from. Of any other source without a validation part, all images are validation images.

        Args:
            spec: a data source, as for `igcv.data.sources.open.open_source`.
            download: whether missing files may be fetched.
            split: a list of the images, instead of that of the training run.

        Raises:
            InputError: if the source cannot be opened, or neither names one.
        """
        recipe = self.card.recipe
        own = str(recipe.get("data") or "")
        wanted = spec or own
        if not wanted:
            raise InputError(
                "the network does not say what it was trained on; name images with --data, or --calibrate to quantize"
            )
        seed = 0 if own and same_source(wanted, own) else None
        rule = split or (Rule.HASH if seed is None else own_split(recipe, self.folder))
        source = open_source(wanted, seed, download=download, split=rule)
        named = recipe.get("data_name") if seed == 0 else ""
        return replace(source, name=str(named)) if named else source

    def predict(self, images: ImageLike | Iterable[ImageLike], top: int = 5) -> list[list[Prediction]]:
        """Classify images.

        Args:
            images: paths of image files, PIL images, arrays uint8 (H, W, 3) of red, green and blue, bytes of image
                files, or files opened as bytes; one image, or several.
            top: guesses per image, most probable first.

        Returns:
            The guesses for each image, also where one image alone was given.

        Raises:
            InputError: for a file that is missing or no readable image, and for anything else that is no image.
        """
        device = next(self.model.parameters()).device
        answers: list[list[Prediction]] = []
        for number, image in enumerate(as_list(images)):
            pixels = self.transform(open_image(image, name_of(image, number))).unsqueeze(0).to(device)
            with torch.inference_mode():
                answers += self.ranked(self.model(pixels).softmax(-1), top)
        return answers

    def ranked(self, probabilities: Tensor, top: int) -> list[list[Prediction]]:
        """The most probable classes of each image, given the probabilities (N, num_classes)."""
        values, labels = probabilities.topk(min(top, probabilities.shape[1]))
        names = self.class_names
        return [
            [Prediction(label, names[label], value) for value, label in zip(*row, strict=True)]
            for row in zip(values.tolist(), labels.tolist(), strict=True)
        ]


def own_split(recipe: Mapping[str, Any], folder: Path | None) -> SplitList | Rule:
    """Return how the images of a training run are divided: by its own list, else as its recipe says.

    Args:
        recipe: the settings of the run.
        folder: the run folder; None where only its weights are at hand.
    """
    given = str(recipe.get("split") or "")
    if folder is not None and (folder / SPLIT).is_file():
        return read_list(folder / SPLIT, kept=True, whole=bool(given))
    if given:
        return read_list(given, kept=True)
    return Rule.HASH if "split" in recipe else Rule.POSITION


def weights_file(path: str | Path) -> Path:
    """The weights that a path stands for: a file itself, of a run folder its best weights, else its last.

    Where there is no such file or folder it may be the name of weights, which are downloaded the first time.
    """
    path = Path(path)
    if not path.exists() and _is_name(path):
        return weights_path(str(path))
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise InputError(
        f"the folder {path} holds no weights ({BEST} or {LAST}); give a run folder of igcv train"
    )


def _is_name(path: Path) -> bool:
    """Whether what is no path is the name of weights.

    Raises:
        InputError: it comes near to one.
    """
    names, given = weights_names(), str(path)
    if given in names:
        return True
    near = any(name.startswith(f"{given}.") for name in names) or get_close_matches(given[:99], names, 1, 0.8)
    if near and path.suffix != ".safetensors" and path.parent == Path():
        raise unknown("weights", given, names, "igcv models --pretrained lists them")
    return False


def load(what: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """Open a trained network.

    Args:
        what: a run folder, a .safetensors file written by igcv, a file written by `igcv.export`, or the name of
            weights, e.g. igcv3_d_100.imagenet (`igcv models --pretrained`), which are downloaded once.
        device: where to put a network that runs in PyTorch; engines run exported files on the CPU.

    Raises:
        InputError: if there is none, it cannot be downloaded, its weights do not fit the network that its card names,
            or the engine of an exported file is not installed.
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
    """The run folder that a file lies in; None if it lies elsewhere."""
    return file.parent if (file.parent / RECIPE).is_file() else None


def _opened(file: Path) -> Classifier:
    """An exported file as a classifier."""
    if not file.is_file():
        raise InputError(
            f"there is no file {file}; give a run folder, a .safetensors file or a file of igcv export"
        )
    session = open_session(file)
    card = card_of(session, file)
    pre = Preprocessing.from_dict(card.preprocessing) if takes_pixels(card) else None
    engine: Any = EngineModule(session, pre)  # a module like a network, though not one of the catalog
    return Classifier(engine, card, _run_folder(file))


def as_classifier(network: "Classifier | str | Path", device: str | torch.device = "cpu") -> Classifier:
    """The classifier itself, or what `load` opens."""
    return network if isinstance(network, Classifier) else load(network, device)


def as_trained(network: "Classifier | str | Path") -> Classifier:
    """A classifier whose network can be folded and exported, or what `load` opens.

    Raises:
        InputError: for an exported file, or one that `load` has opened.
    """
    if isinstance(network, Classifier):
        name, exported = "the network", isinstance(network.model, EngineModule)
    else:
        name, exported = str(network), is_exported(network)
    if exported:
        raise InputError(f"{name} is exported already; give the run folder or weights that it came from")
    return as_classifier(network)


def network_of(card: Card) -> Network:
    """Return the network of a card, on the device "meta": nothing is allocated before a file has shown as much."""
    with torch.device("meta"):
        return build_model(
            card.model, card.num_classes, card.multiplier, card.input_size, strides=card.strides or None
        )
