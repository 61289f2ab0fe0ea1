"""Card of a weights file: the network, its preprocessing, its results and its origin.

The weights file itself stores the card, as the metadata entry "igcv".
"""

import json
import re
import reprlib
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from igcv.errors import InputError
from igcv.writing import to_json

CARD_KEY = "igcv"


@dataclass(frozen=True, kw_only=True)
class Card:
    """Metadata of a weights file.

    Attributes:
        model: catalog name of the network.
        num_classes: number of classes.
        multiplier: width multiplier, if it differs from the multiplier in the name, otherwise None.
        input_size: side of the square input images, in pixels.
        strides: total stride of the stem, then the stride of each stage; empty in files from before cards recorded
            strides, if the strides for `input_size` have not changed since.
        class_names: names of the classes in label order; empty if unknown.
        class_ids: other names of the classes in label order, which data sets may use instead, such as the ImageNet
            synset n01440764; empty if there are none.
        preprocessing: preprocessing of the images (see `igcv.data.preprocessing.Preprocessing`).
        recipe: the resolved training recipe; empty if igcv did not train the network.
        results: measured results, e.g. {"top1": 98.1, "data": "digits", "images": 360}; accuracies in percent.
        source: origin of the weights, e.g. a converted file and its SHA-256.
    """

    model: str
    num_classes: int
    multiplier: float | None = None
    input_size: int
    strides: tuple[int, ...]
    class_names: tuple[str, ...] = ()
    class_ids: tuple[str, ...] = ()
    preprocessing: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the classes in label order; the labels as text if the names are unknown."""
        return self.class_names or tuple(map(str, range(self.num_classes)))

    def to_json(self) -> str:
        """Return the card as a JSON object."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Card":
        """Parse the card of the file `path`; InputError if the card is invalid."""
        try:
            values = json.loads(text)
            lists = {key: tuple(values.get(key, ())) for key in ("class_names", "class_ids", "strides")}
            card = cls(**{**values, **lists})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}: cannot read the card of this file ({error}). Save the weights again."
            ) from error
        for name, kinds in _CARD_TYPES.items():
            if type(value := getattr(card, name)) not in kinds:
                raise _invalid(path, name, reprlib.repr(value), _IN_WORDS[kinds[0]])
        for name, (low, high) in _CARD_RANGES.items():
            if not low <= (value := getattr(card, name)) <= high:
                raise _invalid(path, name, value, f"{low} to {high}")
        for name in ("class_names", "class_ids"):
            names = getattr(card, name)
            if not all(isinstance(text, str) for text in names):
                raise _invalid(path, name, reprlib.repr(names), "a list of texts")
            if names and len(names) != card.num_classes:
                raise _invalid(path, name, f"{len(names)} names", f"{card.num_classes}, as num_classes says")
        if not all(type(stride) is int for stride in card.strides):
            raise _invalid(path, "strides", reprlib.repr(card.strides), "integers")
        check_strides_known(path, card.model, card.input_size, card.strides)
        return card


def _invalid(path: Path, name: str, got: object, expected: str) -> InputError:
    """Return the error of a field of the card."""
    return InputError(f"{path}: card field '{name}': got {got}, expected {expected}. Save the weights again.")


_CARD_TYPES: dict[str, tuple[type, ...]] = {
    "model": (str,),
    "num_classes": (int,),
    "multiplier": (float, int, type(None)),
    "input_size": (int,),
    "strides": (tuple,),
    "class_names": (tuple,),
    "class_ids": (tuple,),
    **{f.name: (dict,) for f in fields(Card) if f.name in ("preprocessing", "recipe", "results", "source")},
}


_IN_WORDS = {str: "text", int: "an integer", float: "a number or null", tuple: "a list", dict: "an object"}


_CARD_RANGES = {"num_classes": (0, 10**6), "input_size": (1, 2**16)}


# A file without strides is older than two changes: the strides of IGCV3 and MobileNetV2 at up to 64 pixels, and the
# blocks of the two shortened IGCV3-D. Current networks could load such weights, but would give other outputs.
OTHER_STRIDES, SMALL = re.compile("igcv3|mobilenetv2"), 64


OTHER_BLOCKS = re.compile("igcv3_d_p[57]0")


def check_strides_known(where: Path, model: str, input_size: int, strides: Sequence[int]) -> None:
    """Raise InputError if the current igcv would build a different network for the weights of an older igcv.

    Args:
        where: the file or the run folder.
        model: catalog name of the network.
        input_size: side of the square input images, in pixels.
        strides: the recorded strides; empty if not recorded.

    Raises:
        InputError: if the strides are not recorded, and the strides or blocks of the network have changed since.
    """
    if strides:
        return
    if OTHER_BLOCKS.match(model):
        changed = "its number of blocks has changed since: it was narrower and now has fewer blocks"
    elif OTHER_STRIDES.match(model) and input_size <= SMALL:
        changed = f"its strides at {input_size} pixels have changed since: it had one more stride of 2"
    else:
        return
    raise InputError(
        f"{where}: {model} was saved before igcv recorded strides, and {changed}. Train it again, or use the version "
        "of igcv that saved it."
    )
