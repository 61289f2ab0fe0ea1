"""Weights on disk: our own safetensors files with a card, and MXNet's checkpoints as plain arrays."""

from igcv.weights.files import Card, load_weights, on_cpu, read_tensors, save_weights, write_file

__all__ = ["Card", "load_weights", "on_cpu", "read_tensors", "save_weights", "write_file"]
