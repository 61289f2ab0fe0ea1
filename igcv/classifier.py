"""A trained network with all that is needed to use it: classes, preprocessing, and where it came from."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from PIL import Image
from torch import Tensor

from igcv.data import DataSource, Preprocessing, Transform, eval_transform, open_source, read_image
from igcv.errors import InputError, differences
from igcv.models import Network, create_model
from igcv.weights import Card, load_weights, released_weights

LAST, BEST = "last.safetensors", "best.safetensors"  # the weights in a run folder


class Prediction(NamedTuple):
    """One guess for one image: the class, its name, and its probability from 0 to 1."""

    label: int
    name: str
    probability: float


@dataclass(frozen=True)
class Classifier:
    """A network in evaluation mode with its card; `igcv.load` makes one.

    Attributes:
        model: the network.
        card: what it is; see `igcv.weights.Card`.
    """

    model: Network
    card: Card

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become input."""
        return Preprocessing.from_dict(self.card.preprocessing)

    @property
    def transform(self) -> Transform:
        """From a PIL RGB image to the network's input, (3, S, S)."""
        return eval_transform(self.preprocessing)

    @property
    def class_names(self) -> Sequence[str]:
        """Names in label order; numbers where none are known."""
        return self.card.class_names or tuple(str(label) for label in range(self.card.num_classes))

    def open_data(self, spec: str | None = None, download: bool = True) -> DataSource:
        """Open the images that `spec` names, or else those of the training run.

        Those are split as in training, so that no validation image is one that the network has learnt from. Of any
        other source without a validation part, all images are validation images.

        Args:
            spec: a data source, as for `igcv.data.open_source`.
            download: whether missing files may be fetched.

        Raises:
            InputError: if the source cannot be opened, or neither names one.
        """
        own = self.card.recipe.get("data")
        wanted = spec or own
        if not wanted:
            raise InputError(
                "the network does not say what it was trained on; name images with --data, or --calibrate to quantize"
            )
        return open_source(wanted, 0 if wanted == own else None, download=download)

    def predict(self, images: Iterable[Image.Image | str | Path], top: int = 5) -> list[list[Prediction]]:
        """Classify images.

        Args:
            images: PIL images or paths of image files.
            top: guesses per image, most probable first.

        Raises:
            InputError: for a file that is missing or no readable image.
        """
        device = next(self.model.parameters()).device
        answers = []
        for image in images:
            pixels = self.transform(open_image(image)).unsqueeze(0).to(device)
            with torch.inference_mode():
                answers.append(self._best(self.model(pixels).softmax(-1)[0], top))
        return answers

    def _best(self, probabilities: Tensor, top: int) -> list[Prediction]:
        values, labels = probabilities.topk(min(top, len(probabilities)))
        return [
            Prediction(label, self.class_names[label], value)
            for value, label in zip(values.tolist(), labels.tolist(), strict=True)
        ]


def open_image(image: Image.Image | str | Path) -> Image.Image:
    """The image, or the file at a path, as PIL RGB."""
    return image.convert("RGB") if isinstance(image, Image.Image) else read_image(image)


def weights_file(path: str | Path) -> Path:
    """The weights that a path stands for: a file itself, of a run folder its best weights, else its last.

    Where there is no such file or folder it may be the name of released weights.
    """
    path = Path(path)
    if not path.exists() and str(path) in (known := released_weights()):
        return known[str(path)]
    if not path.is_dir():
        return path
    for name in (BEST, LAST):
        if (path / name).is_file():
            return path / name
    raise InputError(
        f"the folder {path} holds no weights ({BEST} or {LAST}); give a run folder of igcv train"
    )


def load(path: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """Open a trained network.

    Args:
        path: a run folder, a .safetensors file written by igcv, or the name of released weights
            (`igcv.weights.released_weights`).
        device: where to put it.

    Raises:
        InputError: if there is none, or its weights do not fit the network that its card names.
    """
    file = weights_file(path)
    tensors, card = load_weights(file)
    model = network_of(card)
    fill(model, tensors, str(file))
    return Classifier(model.to(device).eval(), card)


def network_of(card: Card) -> Network:
    """Return the network of a card, on the device "meta": nothing is allocated before a file has shown as much."""
    with torch.device("meta"):
        return create_model(
            card.model, card.num_classes, card.multiplier, card.input_size, strides=card.strides or None
        )


def fill(model: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy `tensors` into `model`, which comes to the CPU if it has no memory yet (device "meta").

    Raises:
        InputError: listing what is missing, left over or of another shape.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - expected.keys())
    wrong = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    if difference := differences({"missing": missing, "left over": surplus, "of another shape": wrong}, 4):
        raise InputError(f"{where} holds the weights of another network than the one to fill ({difference})")
    if any(tensor.is_meta for tensor in expected.values()):
        model.to_empty(device="cpu")
    model.load_state_dict(tensors)
