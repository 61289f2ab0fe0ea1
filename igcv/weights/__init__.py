"""Weights files: safetensors files of igcv with a card, and files of other frameworks (`igcv.weights.foreign`)."""

from typing import TYPE_CHECKING

from igcv.renamed import old_names
from igcv.weights.card import Card, check_strides_known
from igcv.weights.files import load_weights, on_cpu, read_tensors, save_weights
from igcv.weights.pretrained import find_weights, list_weights, weights_path
from igcv.weights.released import released_weights

__all__ = [
    "Card",
    "check_strides_known",
    "find_weights",
    "list_weights",
    "load_weights",
    "on_cpu",
    "read_tensors",
    "released_weights",
    "save_weights",
    "weights_path",
]

if not TYPE_CHECKING:  # type checkers reject the old names
    __getattr__ = old_names(__name__)
