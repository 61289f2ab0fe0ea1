"""Peak memory, available memory and the malloc settings of the C library."""

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

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # options of mallopt (malloc.h)
MIB = 2**20
SIGNS = (
    *("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc"),
    "could not create a primitive",  # oneDNN in PyTorch 2.11
)
LARGEST = 2**31 - 1  # bytes; the largest value of an int


def keep_freed_memory() -> bool:
    """Make glibc malloc keep freed memory for the next tensor.

    By default, glibc maps each block above 32 MiB separately and unmaps the block when it is freed. Each large
    activation of each step then causes page faults. With this setting, the process keeps its peak memory.

    Returns:
        Whether the setting succeeded; False if the C library is not glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    libc = ctypes.CDLL(None)
    return all(libc.mallopt(option, LARGEST) == 1 for option in (M_MMAP_THRESHOLD, M_TRIM_THRESHOLD))


def reset_peak(device: torch.device) -> None:
    """Reset the peak memory of a GPU. The peak of a process cannot be reset on all systems."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> int:
    """Return the peak memory in MiB: of tensors on a GPU since `reset_peak`, or of this process on other devices."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // MIB
    with suppress(OSError, StopIteration):  # Linux; ru_maxrss below includes the peak of the parent process
        return next(kib_of(Path("/proc/self/status"), "VmHWM")) // 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (MIB if sys.platform == "darwin" else 2**10)


def kib_of(path: Path, key: str) -> Iterator[int]:
    """Yield the value of `key` in a file of /proc, in KiB."""
    for line in path.read_text().splitlines():
        if line.startswith(f"{key}:"):
            yield int(line.split()[1])


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception reports a lack of memory, on a GPU or a CPU."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in SIGNS
    )


@contextmanager
def without_onednn() -> Iterator[None]:
    """Disable oneDNN, which may fail to create kernels after a lack of memory. The tensors are the same."""
    before = torch.backends.mkldnn.enabled
    torch.backends.mkldnn.enabled = False  # type: ignore[assignment]
    try:
        yield
    finally:
        torch.backends.mkldnn.enabled = before


class Allocations(TorchDispatchMode):
    """Counter of the bytes of all tensors that operations create while the mode is active.

    Attributes:
        peak: the largest total size of these tensors at one time, in bytes.
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
    """Make glibc return freed memory to the system. Return the bytes of address space that it keeps for new blocks."""
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
    """Return the available memory in bytes on Linux, or infinity on other systems."""
    with suppress(OSError, StopIteration):
        return next(kib_of(Path("/proc/meminfo"), "MemAvailable")) * 2**10
    return float("inf")


def group_bytes() -> list[float]:
    """Return the bytes left under the memory limit of the container; empty without a limit."""
    with suppress(OSError, ValueError, KeyError):
        folder = Path("/sys/fs/cgroup")
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [limit - used + int(counts["file"])]  # the page cache counts as free
    return []


def address_bytes(kept: int) -> list[float]:
    """Return the bytes of address space left under ulimit -v; empty without a limit. `kept` bytes are already free."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    with suppress(OSError, StopIteration):
        return [limit - next(kib_of(Path("/proc/self/status"), "VmSize")) * 2**10 + kept]
    return []
