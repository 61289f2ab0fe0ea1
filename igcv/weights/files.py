"""Weights on disk: safetensors with a card that says what they are and how to feed them.

The card travels inside the file (as the metadata entry "igcv"), so that neither can be lost or swapped.
"""

import errno
import json
import os
import re
import reprlib
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from igcv.errors import InputError

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
        preprocessing: how to make its input from an image (see igcv.data.Preprocessing).
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
    preprocessing: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)
    results: dict[str, Any] = field(default_factory=dict)
    source: dict[str, Any] = field(default_factory=dict)

    def to_json(self) -> str:
        """The card as one JSON object."""
        return json.dumps(asdict(self))

    @classmethod
    def from_json(cls, text: str, path: Path) -> "Card":
        """Parse a card found in `path`; InputError if it is none."""
        try:
            values = json.loads(text)
            lists = {key: tuple(values.get(key, ())) for key in ("class_names", "strides")}
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
        if not all(isinstance(name, str) for name in card.class_names):
            raise InputError(f"{path}: the class names in the card are not all text")
        if card.class_names and len(card.class_names) != card.num_classes:
            raise InputError(f"{path}: the card names {len(card.class_names)} classes of {card.num_classes}")
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


def write_file(path: Path, content: bytes, previous: Path | None = None) -> None:
    """Write `content` so that `path` holds either the old or the new file, whatever happens meanwhile.

    Args:
        path: the file.
        content: what will be in it; read back before it takes its place.
        previous: where the old file goes; None to let it go.

    Raises:
        InputError: it cannot be written; then the old file is still there.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with open(temporary, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        if temporary.read_bytes() != content:
            raise OSError(errno.EIO, "what was written reads back as something else")
        if previous is not None and path.exists():
            _keep(path, previous)
        os.replace(temporary, path)
        _sync_folder(path.parent)
    except OSError as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise InputError(
            f"cannot write {path}: {error.strerror}; free some space or choose another place"
        ) from error


def _keep(path: Path, previous: Path) -> None:
    """Give the file at `path` the name `previous` too, or instead where a file can have one name only."""
    linked = previous.with_name(previous.name + ".tmp")
    try:
        linked.unlink(missing_ok=True)
        os.link(path, linked)
        os.replace(linked, previous)
    except OSError:
        os.replace(path, previous)


def _sync_folder(folder: Path) -> None:
    """Have the names in a folder on the disk, too, where the system lets one."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a safetensors file holds them: without gradients, on the CPU, in C order."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on the CPU, and its metadata.

    The file is opened once, so that they belong together even while another process replaces it.

    Raises:
        InputError: if there is no such file or it is not a whole safetensors file.
    """
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a run folder or a .safetensors file")
    try:
        content = path.read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, header.get("__metadata__", {})
    # A KeyError is what a type of numbers gives that torch does not have.
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); it may be cut short"
        ) from error


def save_weights(path: Path, tensors: Mapping[str, Tensor], card: Card) -> None:
    """Write the weights of a network with their card."""
    write_file(path, save(on_cpu(tensors), {CARD_KEY: card.to_json()}))


def load_weights(path: Path) -> tuple[dict[str, Tensor], Card]:
    """The weights and the card of a file written by `save_weights`."""
    tensors, metadata = read_tensors(path)
    if CARD_KEY not in metadata:
        raise InputError(
            f"{path} has no igcv card; expected weights written by igcv (igcv train, igcv convert)"
        )
    return tensors, Card.from_json(metadata[CARD_KEY], path)
