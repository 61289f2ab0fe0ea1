"""Reading and writing of weights files: safetensors files with a card."""

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
    """Return the tensors for a safetensors file: without gradients, on the CPU, in C order."""
    return {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}


def check_kind(path: Path) -> None:
    """Raise InputError if the file is missing or has a known format other than safetensors."""
    if not path.is_file():
        raise InputError(f"file not found: '{path}'. Give a run folder or a .safetensors file.")
    try:
        kind = kind_of(path)
    except OSError as error:
        raise InputError(f"cannot read '{path}' ({error.strerror}). Check its permissions.") from error
    if kind:
        raise InputError(f"'{path}' is {kind}. Expected weights of igcv (.safetensors)")


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Return all tensors of a safetensors file, on the CPU, and its metadata.

    One read gives both, so they match even if another process replaces the file.

    Raises:
        InputError: if the file is missing, or is not a complete safetensors file.
    """
    check_kind(path)
    try:
        content = path.read_bytes()
        tensors = load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        return tensors, header.get("__metadata__", {})
    # safetensors raises KeyError for a data type that torch does not have.
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(
            f"'{path}' is not a readable safetensors file ({error}). It may be truncated."
        ) from error


def save_weights(
    path: Path, tensors: Mapping[str, Tensor], card: Card, metadata: Mapping[str, str] | None = None
) -> None:
    """Write the weights of a network, their card, and more metadata for other programs."""
    write_file(path, save(on_cpu(tensors), {CARD_KEY: card.to_json(), **(metadata or {})}))


def read_card(path: Path) -> Card:
    """Return the card of a weights file, without reading the tensors."""
    return _card_in(read_metadata(path), path)


def read_metadata(path: Path) -> dict[str, str]:
    """Return the metadata of a safetensors file, without reading the tensors."""
    check_kind(path)
    try:
        with safe_open(path, "pt") as file:
            return file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(
            f"'{path}' is not a readable safetensors file ({error}). It may be truncated."
        ) from error


def load_weights(path: Path) -> tuple[dict[str, Tensor], Card]:
    """Return the weights and the card of a weights file."""
    tensors, metadata = read_tensors(path)
    return tensors, _card_in(metadata, path)


def _card_in(metadata: Mapping[str, str], path: Path) -> Card:
    if CARD_KEY not in metadata:
        raise InputError(
            f"'{path}' has no igcv card, expected weights written by igcv. To convert weights of {TORCH}: "
            f"igcv convert {quoted(path)} OUT.safetensors"
        )
    return Card.from_json(metadata[CARD_KEY], path)


def fill(model: torch.nn.Module, tensors: dict[str, Tensor], where: str) -> None:
    """Copy `tensors` into `model`. A model on the device "meta" moves to the CPU.

    Raises:
        InputError: if names or shapes differ; the message lists them.
    """
    expected = model.state_dict()
    missing = sorted(expected.keys() - tensors.keys())
    surplus = sorted(tensors.keys() - expected.keys())
    wrong = sorted(k for k in expected.keys() & tensors.keys() if expected[k].shape != tensors[k].shape)
    if difference := differences({"missing": missing, "unexpected": surplus, "wrong shape": wrong}, 4):
        raise InputError(f"{where}: the weights do not fit the network ({difference})")
    if any(tensor.is_meta for tensor in expected.values()):
        copies = {name: tensor.to(expected[name].dtype, copy=True) for name, tensor in tensors.items()}
        model.load_state_dict(copies, assign=True)
    else:
        model.load_state_dict(tensors)
