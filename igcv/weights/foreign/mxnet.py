"""Conversion between MXNet checkpoints and networks."""

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch

from igcv.data.preprocessing import AS_STORED, MXNET
from igcv.errors import InputError
from igcv.models import Network, build_model, default_input_size
from igcv.weights.card import Card
from igcv.weights.files import fill
from igcv.weights.foreign import names
from igcv.weights.foreign.mxnet_files import read_params
from igcv.weights.foreign.mxnet_graph import check_graph
from igcv.weights.foreign.recognize import Recognized, recognize


def read_checkpoint(
    path: Path,
    symbol: str | Path | None = None,
    input_size: int | None = None,
    strides: Sequence[int] | None = None,
) -> tuple[Network, Card]:
    """Return the network of an MXNet checkpoint, with its weights, and its card.

    `igcv.from_mxnet` describes the arguments and errors.
    """
    arrays = _without_prefix(path, read_params(path))
    found = recognize({name: array.shape for name, array in arrays.items()})
    size = input_size or default_input_size(found.model)
    with torch.device("meta"):
        network = build_model(found.model, found.num_classes, input_size=size, strides=strides)
    naming = names.naming_of(arrays)
    names.check_same_names(str(path), names.names_of(network, naming), arrays)
    if symbol is not None:
        check_graph(symbol, network, naming)
    tensors = {name: torch.tensor(0) for name in network.state_dict() if name.endswith("num_batches_tracked")}
    for name, array in arrays.items():
        tensors[names.to_igcv(name, naming)] = torch.from_numpy(array.astype(np.float32))
    fill(network, tensors, str(path))
    return network, _card(path, found, size, network.strides)


def checkpoint_arrays(network: Network) -> dict[str, np.ndarray]:
    """Return the arrays of an MXNet checkpoint for a network, by key, in the order of MXNet.

    Raises:
        InputError: if the network has no names in MXNet (IGCV2).
    """
    tensors = network.state_dict()
    naming = names.naming_of(tensors)
    arrays = {
        names.prefixed(names.to_mxnet(name, naming)): tensors[name].numpy()
        for name in names.graph_order(tensors)
    }
    return dict(sorted(arrays.items(), key=lambda entry: entry[0].startswith("aux:")))


def _card(path: Path, found: Recognized, size: int, strides: tuple[int, ...]) -> Card:
    images = replace(MXNET, input_size=size, crop=1.0 if size <= 32 else MXNET.crop, pixels=AS_STORED)
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    return Card(
        model=found.model,
        num_classes=found.num_classes,
        input_size=size,
        strides=strides,
        preprocessing=images.to_dict(),
        source={"file": path.name, "sha256": digest, "format": "mxnet"},
    )


def _without_prefix(path: Path, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    for key, array in arrays.items():
        if key != names.prefixed(key[4:]):
            expected = "expected arg:NAME for weights, aux:NAME for moving averages"
            raise InputError(f"entry in '{path}': got '{key}', {expected}")
        if array.dtype.kind != "f":
            raise InputError(
                f"{path}: data type of {key}: got {array.dtype}, expected float16, float32 or float64"
            )
    return {key[4:]: array for key, array in arrays.items()}
