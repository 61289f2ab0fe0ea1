"""Description of the machine and the software, for the results of runs and benchmarks."""

import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch

from igcv.version import __version__


def host(device: torch.device, processes: int = 1) -> dict[str, Any]:
    """Return the device, processor, threads and versions by name."""
    return {
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else device.type,
        "processor": platform.processor() or platform.machine(),
        "cpu_threads": torch.get_num_threads(),
        "processes": processes,
        "igcv": __version__,
        **({"commit": commit} if (commit := source_commit()) else {}),
        "torch": torch.__version__,
        "timm": version("timm"),
        "python": platform.python_version(),
    }


def processor() -> str:
    """Return the name of the processor, as part of the key in caches that several machines share."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()


def source_commit() -> str | None:
    """Return the git commit of the running code, followed by "+" if files differ; None outside a checkout."""
    root = Path(__file__).parents[2]
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty=+"],
            capture_output=True,
            text=True,
            check=True,
            timeout=10,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
