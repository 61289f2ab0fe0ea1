"""Weights on disk: safetensors files with a card, and from their tensors to a network."""

import json
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load, save
from torch import Tensor

from igcv.errors import InputError, differences
from igcv.terminal import quoted
from igcv.weights.card import CARD_KEY, Card
from igcv.weights.kinds import TORCH, kind_of
from igcv.writing import write_file


def on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as a safetensors file holds them: without gradients, on the CPU, in C order."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def check_kind(path: Path) -> None:
    """Raise InputError where there is no file, or one that is known to be something else than safetensors."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a run folder or a .safetensors file")
    try:
        kind = kind_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}); check its permissions") from error
    if kind:
        raise InputError(f"{path} is {kind}. Expected weights of igcv (.safetensors)")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """All tensors of a safetensors file, on the CPU, and its metadata.

    The file is opened once, so that they belong together even while another process replaces it.

    Raises:
        InputError: if there is no such file or it is not a whole safetensors file.
    """
    check_kind(path)
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


def read_card(path: Path) -> Card:
    """The card of a file written by `save_weights`, without its tensors."""
    return _card_in(read_metadata(path), path)


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors."""
    check_kind(path)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"{path} is not a readable safetensors file ({error}); it may be cut short"
        ) from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], Card]:
    """The weights and the card of a file written by `save_weights`."""
    tensors, metadata = read_tensors(path)
    return tensors, _card_in(metadata, path)


def _card_in(metadata: Mapping[str, str], path: Path) -> Card:
    if CARD_KEY not in metadata:
        raise InputError(
            f"{path} has no igcv card, which tells the network; expected weights written by igcv (igcv train, igcv "
            f"convert). Those of {TORCH} become such weights with: igcv convert {quoted(path)} OUT.safetensors"
        )
    return Card.from_json(metadata[CARD_KEY], path)


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
        copies = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in tensors.items()}
        model.load_state_dict(copies, assign=True)
    else:
        model.load_state_dict(tensors)
