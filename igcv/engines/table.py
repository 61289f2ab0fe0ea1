"""Table of the inference engines and their session classes.

A session takes NumPy images, float32 (N, 3, S, S), or uint8 (N, S, S, 3) if the file includes the preprocessing.
It returns the logits as a NumPy array, float32 (N, num_classes).
"""

from importlib.metadata import version
from pathlib import Path
from typing import Any

from igcv.engines.coreml import READ_BACK, CoreMlSession
from igcv.engines.executorch import ExecuTorchSession
from igcv.engines.litert import LiteRtSession
from igcv.engines.ncnn import NcnnSession
from igcv.engines.onnxruntime import OnnxSession
from igcv.engines.openvino import OpenVinoSession
from igcv.engines.pytorch import TorchSession
from igcv.engines.session import Session
from igcv.errors import InputError, unknown
from igcv.extras import required

ENGINES: dict[str, Any] = {
    "torch": TorchSession,
    "onnx": OnnxSession,
    "openvino": OpenVinoSession,
    "litert": LiteRtSession,
    "ncnn": NcnnSession,
    "executorch": ExecuTorchSession,
    "coreml": CoreMlSession,
}
NOTES = {"coreml": READ_BACK}  # to print with results where the engine itself did not run
CHECKED_BY = {"coreml": CoreMlSession}  # constructor of the session that checks a new file, if not `open`
UNTIMED = {"coreml": "Measure the package in Xcode."}  # engines without measurements, and what to do instead


def engine(name: str) -> Any:
    """Return the session class of an engine.

    Raises:
        InputError: if the engine is unknown or not installed.
    """
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    required(ENGINES[name].package, name, ENGINES[name].extra)
    return ENGINES[name]


def session_to_check(name: str, path: Path, threads: int | None = None) -> Session:
    """Return a session that checks a new file, in float32 arithmetic."""
    return CHECKED_BY.get(name, ENGINES[name].open)(path, threads)


def check_timed(name: str) -> None:
    """Raise InputError if igcv cannot measure an engine."""
    if name in UNTIMED:
        raise InputError(f"igcv cannot measure the engine '{name}'. {UNTIMED[name]}")


def version_of(name: str) -> str:
    """Return the name and version of the package of an engine."""
    package = ENGINES[name].package
    return f"{package} {version(package)}"
