"""Weights on disk: our own safetensors files with a card, and MXNet's checkpoints as plain arrays."""

from igcv.weights.files import (
    Card,
    check_strides_known,
    load_weights,
    on_cpu,
    read_tensors,
    save_weights,
    write_file,
)
from igcv.weights.released import find_released, released_weights

__all__ = [
    "Card",
    "check_strides_known",
    "find_released",
    "load_weights",
    "on_cpu",
    "read_tensors",
    "released_weights",
    "save_weights",
    "write_file",
]
