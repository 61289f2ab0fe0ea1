"""Host and package versions of a measurement, stored in every result."""

import os
import platform
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from igcv.machine.host import processor
from igcv.version import __version__

PACKAGES = ("torch", "torchvision", "timm", "pytorchcv", "onnxruntime", "openvino", "pillow", "numpy")


def host_and_versions(device: str = "cpu") -> dict[str, Any]:
    """Return processor, accelerator, threads, date and versions, without names of hosts or folders."""
    accelerator = {"gpu": torch.cuda.get_device_name()} if device == "cuda" else {}
    return {
        "processor": processor(),
        "cores": os.cpu_count(),
        **accelerator,
        "threads": torch.get_num_threads(),
        "date": f"{datetime.now(UTC):%Y-%m-%d}",
        "python": platform.python_version(),
        "igcv": __version__,
        **{name: installed for name in PACKAGES if (installed := _version(name))},
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:
        return None
