"""Checkpoints of pytorchcv, torchvision and timm as a network with its card: .pth files and safetensors."""

import hashlib
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igcv.data.preprocessing import IMAGENET
from igcv.errors import InputError
from igcv.models import Network, build_model, default_input_size
from igcv.weights.card import Card
from igcv.weights.files import fill, read_tensors
from igcv.weights.foreign.names import check_same_names
from igcv.weights.foreign.recognize import recognize_ours
from igcv.weights.foreign.torch_names import COUNTER, names_of_file

PICKLES = (".pth", ".pt", ".bin", ".tar")  # suffixes of files of torch.save, the last of timm's .pth.tar
MAX_BYTES = 2**29  # of a file and of its tensors: four times the largest network of the catalog
# The filter with which each project evaluates, where nothing else is known of a file.
INTERPOLATIONS = {"pytorchcv": "bilinear", "torchvision": "bilinear", "timm": "bicubic"}
# Where checkpoints of a training keep their weights.
INNER = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_checkpoint(
    path: Path, input_size: int | None = None, strides: Sequence[int] | None = None
) -> tuple[Network, Card]:
    """Return the network of a checkpoint of pytorchcv, torchvision or timm, with its weights, and its card.

    The card has the normalization and the filter with which the project evaluates. Tensors become float32.

    Args and errors: those of `igcv.from_torch`.
    """
    tensors = read_state(path)
    names = names_of_file(str(path), tensors)
    check_same_names(
        str(path),
        [name for name in names.theirs.values() if not name.endswith(COUNTER)],
        [name for name in tensors if not name.endswith(COUNTER)],
    )
    ours = {name: tensors[theirs] for name, theirs in names.theirs.items() if theirs in tensors}
    shapes = {name: tuple(tensor.shape) for name, tensor in ours.items() if not name.endswith(COUNTER)}
    found = recognize_ours(shapes, "seq", names.theirs.__getitem__)
    size = input_size or default_input_size(found.model)
    with torch.device("meta"):
        network = build_model(found.model, found.num_classes, input_size=size, strides=strides)
    counters = {name: torch.tensor(0) for name in network.state_dict() if name.endswith(COUNTER)}
    fill(network, counters | ours, str(path))
    images = replace(IMAGENET, input_size=size, interpolation=INTERPOLATIONS[names.project])
    card = Card(
        model=found.model,
        num_classes=found.num_classes,
        input_size=size,
        strides=network.strides,
        preprocessing=images.to_dict(),
        source={
            "file": path.name,
            "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
            "format": names.project,
        },
    )
    return network, card


def read_state(path: Path) -> dict[str, Tensor]:
    """The tensors of a file that torch.save or safetensors wrote, by name, as float32.

    Nothing in the file is executed. Of a checkpoint of a training the weights are taken, averaged ones first.

    Raises:
        InputError: there is no such file, it is too large, or it holds anything but tensors by name.
    """
    state: Any = read_tensors(path)[0] if path.suffix == ".safetensors" else _unpickled(path)
    while isinstance(state, Mapping) and (inner := next((key for key in INNER if key in state), None)):
        state = state[inner]
    if not isinstance(state, Mapping) or not state:
        raise InputError(
            f"{path} holds {type(state).__name__}, expected tensors by name; save model.state_dict()"
        )
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{path}: {name!r:.80} holds {type(tensor).__name__}, expected tensors by name")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise InputError(f"{path}: {name} is not a plain tensor of numbers; save it in float32")
    plain = {
        name.removeprefix("module."): tensor if name.endswith(COUNTER) else tensor.float()
        for name, tensor in state.items()
    }
    if len(plain) < len(state):
        raise InputError(f"{path} holds some tensors twice, with 'module.' before their names and without it")
    return plain


def _unpickled(path: Path) -> Any:
    """What torch.save wrote, tensors and plain containers alone."""
    if not path.is_file():
        raise InputError(f"there is no file {path}; give a .pth file of pytorchcv, torchvision or timm")
    try:
        if max(path.stat().st_size, _unpacked_bytes(path)) > MAX_BYTES:
            raise InputError(
                f"{path} holds more than {MAX_BYTES / 1e6:,.0f} MB, more than any network of igcv"
            )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tensors that are refused anyway
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - on damaged and hostile bytes torch.load raises nearly anything
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(
            f"{path} is no readable file of torch.save with tensors alone ({first}); it may be cut short, or made to "
            "run a program"
        ) from None


def _unpacked_bytes(path: Path) -> int:
    """What is in a file of torch.save, which is a zip archive, unless it is of PyTorch before 1.6."""
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())
