"""What travels with weights: the card, which says what they are and how to feed them.

A card travels inside the file (as the metadata entry "igcv"), so that neither can be lost or swapped.
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
    """What a weights file holds.

    Attributes:
        model: catalog name of the network.
        num_classes: its outputs.
        multiplier: width multiplier where it is not the one in the name, else None.
        input_size: side in pixels of the images it was built for.
        strides: total stride of its stem, then the stride of each stage; empty in files written before cards held them,
            where the strides for `input_size` are the same today.
        class_names: in label order; empty if unknown.
        class_ids: other names of the classes, in label order, by which images are known as well: ImageNet's synsets,
            such as n01440764; empty if there are none.
        preprocessing: how to make its input from an image (see igcv.data.preprocessing.Preprocessing).
        recipe: the resolved training recipe, empty if not trained here.
        results: measured figures, e.g. {"top1": 98.1, "data": "digits", "images": 360}; percentages.
        source: where the weights come from, e.g. a converted file and its SHA-256.
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

    def to_json(self) -> str:
        """The card as one JSON object."""
        return to_json(asdict(self))

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Card":
        """Parse a card found in `path`; InputError if it is none."""
        try:
            values = json.loads(text)
            lists = {key: tuple(values.get(key, ())) for key in ("class_names", "class_ids", "strides")}
            card = cls(**{**values, **lists})
        except (ValueError, TypeError, AttributeError, RecursionError) as error:
            raise InputError(
                f"{path}: the card in this file cannot be read ({error}); save the weights again"
            ) from error
        for name, kinds in _CARD_TYPES.items():
            if type(getattr(card, name)) not in kinds:
                raise InputError(
                    f"{path}: '{name}' in the card is {reprlib.repr(getattr(card, name))}, which is not of its type"
                )
        for name, (low, high) in _CARD_RANGES.items():
            if not low <= getattr(card, name) <= high:
                raise InputError(f"{path}: '{name}' in the card is not from {low} to {high}")
        for names in (card.class_names, card.class_ids):
            if not all(isinstance(name, str) for name in names):
                raise InputError(f"{path}: the class names in the card are not all text")
            if names and len(names) != card.num_classes:
                raise InputError(f"{path}: the card names {len(names)} classes of {card.num_classes}")
        if not all(type(stride) is int for stride in card.strides):
            raise InputError(f"{path}: 'strides' in the card: got {card.strides}, expected whole numbers")
        check_strides_known(path, card.model, card.input_size, card.strides)
        return card


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


_CARD_RANGES = {"num_classes": (0, 10**6), "input_size": (1, 2**16)}


# A file without strides is older than two changes. IGCV3 and MobileNetV2 got other strides at up to 64 pixels; the two
# shortened IGCV3-D got other blocks. Today's networks would take such weights, and compute something else.
OTHER_STRIDES, SMALL = re.compile("igcv3|mobilenetv2"), 64


OTHER_BLOCKS = re.compile("igcv3_d_p[57]0")


def check_strides_known(where: Path, model: str, input_size: int, strides: Sequence[int]) -> None:
    """Refuse a network of an older igcv that today's igcv would build otherwise.

    Args:
        where: the file or the run folder.
        model: catalog name of the network.
        input_size: side in pixels of the images it was built for.
        strides: those that are recorded; empty if none are.

    Raises:
        InputError: if none are, and the network's strides or blocks have changed since.
    """
    if strides:
        return
    if OTHER_BLOCKS.match(model):
        changed = "its number of blocks has changed since: it was narrower, now it has fewer blocks"
    elif OTHER_STRIDES.match(model) and input_size <= SMALL:
        changed = f"its strides at {input_size} pixels have changed since: it was downsampled once more"
    else:
        return
    raise InputError(
        f"{where}: {model} was saved before igcv recorded strides, and {changed}. Train it again, or use the igcv that "
        "saved it"
    )
