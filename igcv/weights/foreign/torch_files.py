"""Reader of checkpoints of pytorchcv, torchvision and timm: .pth files and safetensors."""

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

PICKLES = (".pth", ".pt", ".bin", ".tar")  # suffixes of torch.save files; .tar is the end of timm's .pth.tar
MAX_BYTES = 2**29  # limit for a file and its tensors: four times the largest network of the catalog
# Default interpolation in the evaluation of each project.
INTERPOLATIONS = {"pytorchcv": "bilinear", "torchvision": "bilinear", "timm": "bicubic"}
# Keys of the weights in training checkpoints, in order of preference.
INNER = ("state_dict_ema", "model_ema", "state_dict", "model")


def read_checkpoint(
    path: Path, input_size: int | None = None, strides: Sequence[int] | None = None
) -> tuple[Network, Card]:
    """Return the network of a checkpoint of pytorchcv, torchvision or timm, with its weights, and its card.

    The card has the normalization and interpolation of the project's evaluation. Tensors are converted to float32.
    `igcv.from_torch` describes the arguments and errors.
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
    """Return the tensors of a torch.save or safetensors file by name, as float32.

    The function executes nothing in the file. From a training checkpoint, it takes the weights, and prefers their EMA.

    Raises:
        InputError: if the file is missing, too large, or contains anything except tensors by name.
    """
    state: Any = read_tensors(path)[0] if path.suffix == ".safetensors" else _unpickled(path)
    while isinstance(state, Mapping) and (inner := next((key for key in INNER if key in state), None)):
        state = state[inner]
    if not isinstance(state, Mapping) or not state:
        raise InputError(
            f"'{path}': got {type(state).__name__}, expected tensors by name. Save model.state_dict()."
        )
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, Tensor):
            raise InputError(f"{path}: {name!r:.80}: got {type(tensor).__name__}, expected tensors by name")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_complex():
            raise InputError(
                f"{path}: {name}: got another kind of tensor, expected dense real numbers. Save it in float32."
            )
    plain = {
        name.removeprefix("module."): tensor if name.endswith(COUNTER) else tensor.float()
        for name, tensor in state.items()
    }
    if len(plain) < len(state):
        raise InputError(f"'{path}' has some tensors twice, with and without the prefix 'module.'")
    return plain


def _unpickled(path: Path) -> Any:
    """Return the content of a torch.save file: only tensors and plain containers."""
    if not path.is_file():
        raise InputError(f"file not found: '{path}'. Give a .pth file of pytorchcv, torchvision or timm.")
    try:
        if max(path.stat().st_size, _unpacked_bytes(path)) > MAX_BYTES:
            raise InputError(f"'{path}' exceeds {MAX_BYTES / 1e6:,.0f} MB, more than any network of igcv")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about tensors that are rejected below
            return torch.load(path, map_location="cpu", weights_only=True)
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - torch.load raises almost any error for damaged or malicious files
        first = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise InputError(
            f"'{path}' is not a readable torch.save file of tensors ({first}). It may be truncated, or contain code."
        ) from None


def _unpacked_bytes(path: Path) -> int:
    """Return the unpacked size of a torch.save file in bytes; 0 for old formats that are not zip archives."""
    if not zipfile.is_zipfile(path):
        return 0
    with zipfile.ZipFile(path) as archive:
        return sum(entry.file_size for entry in archive.infolist())
