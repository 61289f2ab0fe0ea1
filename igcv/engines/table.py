"""The engines that run networks: one session class each, in one table.

A session takes images (N, 3, S, S) float32, or uint8 (N, S, S, 3) where preprocessing is inside, and gives logits
(N, num_classes) float32, all NumPy arrays.
"""

from importlib import import_module
from typing import Any

from igcv.engines.onnxruntime import OnnxSession
from igcv.engines.openvino import OpenVinoSession
from igcv.engines.pytorch import TorchSession
from igcv.errors import unknown
from igcv.extras import required

ENGINES: dict[str, Any] = {"torch": TorchSession, "onnx": OnnxSession, "openvino": OpenVinoSession}


def engine(name: str) -> Any:
    """The session class of an engine; InputError if it is unknown or not installed."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    required(ENGINES[name].package, name, "deploy")
    return ENGINES[name]


def version_of(name: str) -> str:
    """Name and version of the package behind an engine."""
    package = ENGINES[name].package
    return f"{package} {import_module(package).__version__}"
