"""Host and package versions of a measurement, stored in every result."""

import json
import os
import platform
from collections.abc import Sequence
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch

from igcv.machine.host import processor
from igcv.version import __version__

PACKAGES = ("torch", "torchvision", "timm", "pytorchcv", "onnxruntime", "openvino", "pillow", "numpy")


def host_and_versions(device: str = "cpu", packages: Sequence[str] = PACKAGES) -> dict[str, Any]:
    """Return processor, accelerator, threads, date and versions of packages, without names of hosts or folders."""
    accelerator = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        **accelerator,
        "threads": torch.get_num_threads(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "igcv": __version__,
        **{name: installed for name in packages if (installed := _version(name))},
    }


def earlier_rows(file: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the rows that an earlier call measured on this machine with the same versions."""
    if not file.is_file():
        return []
    before = json.loads(file.read_text())
    same = {**before["machine"], "date": ""} == {**about, "date": ""}
    return before["rows"] if same else []


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
