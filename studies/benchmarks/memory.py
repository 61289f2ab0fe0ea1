"""The memory of a process."""

import ctypes
import platform
import resource
import sys

import torch


def release_memory() -> None:
    """Give freed memory back while the others run, so that all entries fit side by side."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def peak_memory(device: str) -> float:
    """The most memory that this process has held, in MiB: of the GPU, or of the machine with all libraries."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20
