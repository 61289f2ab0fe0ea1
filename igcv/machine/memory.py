"""Memory of this machine: its peak, what is left of it, and what the C library does with freed blocks."""

import ctypes
import platform
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any
from weakref import finalize

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # mallopt's names (malloc.h)
MIB = 2**20
SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")
LARGEST = 2**31 - 1  # bytes; the largest value of an int


def keep_freed_memory() -> bool:
    """Let glibc keep freed blocks for the next tensor instead of giving them back to the system.

    By default it maps every block above 32 MiB afresh and unmaps it when it is freed, so that each large
    activation of each step is faulted in page by page. The process then holds on to its peak memory.

    Returns:
        Whether it could be done; False where the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, LARGEST) == 1 for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))


def reset_peak(device: torch.device) -> None:
    """Measure the peak of a GPU from now on; that of a process cannot be reset everywhere."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> int:
    """Return the peak in MiB: of tensors on a GPU since `reset_peak`, else of the resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // MIB
    with suppress(OSError, StopIteration):  # Linux; the number below begins with that of the parent process
        return next(kib_of(Path("/proc/self/status"), "VmHWM")) // 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (MIB if sys.platform == "darwin" else 2**10)


def kib_of(path: Path, key: str) -> Iterator[int]:
    """Yield the number of KiB after `key` in a file of /proc."""
    for line in path.read_text().splitlines():
        if line.startswith(f"{key}:"):
            yield int(line.split()[1])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception tells of memory that could not be had, on a GPU or beside it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in SIGNS
    )


@contextmanager
def without_onednn() -> Iterator[None]:
    """Compute without oneDNN, which after a lack of memory may make no kernels; the tensors are the same."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


class Allocations(TorchDispatchMode):
    """Counts the bytes of the tensors that operations make while it is active.

    Attributes:
        peak: the most that existed at once.
    """

    def __init__(self) -> None:
        super().__init__()
        self.peak = self._held = 0
        self._known: set[int] = set()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._note(tensor.untyped_storage())
        return made

    def _note(self, storage: torch.UntypedStorage) -> None:
        key, size = storage._cdata, storage.nbytes()
        if key in self._known:
            return
        self._known.add(key)
        self._held += size
        self.peak = max(self.peak, self._held)
        finalize(storage, self._forget, key, size).atexit = False

    def _forget(self, key: int, size: int) -> None:
        self._known.discard(key)
        self._held -= size


def give_back_freed_memory() -> int:
    """Let glibc return freed memory to the system; return the bytes of addresses that it keeps for new blocks."""
    libc = ctypes.CDLL(None)
    with suppress(AttributeError):  # not glibc, or one before 2.33
        libc.malloc_trim(0)
        libc.mallinfo2.restype = _MallInfo
        return libc.mallinfo2().fordblks
    return 0


class _MallInfo(ctypes.Structure):
    """glibc's struct mallinfo2 (malloc.h)."""

    _fields_ = [
        *((name, ctypes.c_size_t) for name in ("arena", "ordblks", "smblks", "hblks", "hblkhd")),
        *((name, ctypes.c_size_t) for name in ("usmblks", "fsmblks", "uordblks", "fordblks", "keepcost")),
    ]


def available_bytes() -> float:
    """Return the bytes that Linux counts as available; elsewhere there is no limit known."""
    with suppress(OSError, StopIteration):
        return next(kib_of(Path("/proc/meminfo"), "MemAvailable")) * 2**10
    return float("inf")


def group_bytes() -> list[float]:
    """Return the bytes that the limit of a container leaves, where there is one."""
    with suppress(OSError, ValueError, KeyError):
        folder = Path("/sys/fs/cgroup")
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [limit - used + int(counts["file"])]  # files that were read make room when it is needed
    return []


def address_bytes(kept: int) -> list[float]:
    """Return the bytes of addresses that ulimit -v leaves, where it is set; `kept` are free already."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    with suppress(OSError, StopIteration):
        return [limit - next(kib_of(Path("/proc/self/status"), "VmSize")) * 2**10 + kept]
    return []
