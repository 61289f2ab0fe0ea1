"""Memory of training: its peak, the largest batch that fits by estimate, and the error where a step needs more."""

import copy
import ctypes
import resource
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple
from weakref import finalize

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from igcv.errors import InputError
from igcv.training.job import Job
from igcv.training.precision import autocast

MIB = 2**20
OVERHEAD = 1.5  # what kernels and fragments add to the tensors of a step, with some room to spare
TRIAL = (2, 4)  # images of the two steps from which others are estimated
SIGNS = ("out of memory", "not enough memory", "can't allocate memory", "cannot allocate memory", "bad_alloc")


class StepMemory(NamedTuple):
    """Bytes that a training step allocates at its peak, apart from weights and optimizer."""

    fixed: float
    per_image: float

    def images_in(self, room: float) -> int:
        """Return how many images fit into so many bytes."""
        return max(int((room - self.fixed) / self.per_image), 0)


def reset_peak(device: torch.device) -> None:
    """Measure the peak of a GPU from now on; that of a process cannot be reset everywhere."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)


def peak_mib(device: torch.device) -> int:
    """Return the peak in MiB: of tensors on a GPU since `reset_peak`, else of the resident memory of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // MIB
    with suppress(OSError, StopIteration):  # Linux; the number below begins with that of the parent process
        return next(_kib(Path("/proc/self/status"), "VmHWM")) // 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak // (MIB if sys.platform == "darwin" else 2**10)


def _kib(path: Path, key: str) -> Iterator[int]:
    """Yield the number of KiB after `key` in a file of /proc."""
    for line in path.read_text().splitlines():
        if line.startswith(f"{key}:"):
            yield int(line.split()[1])


@contextmanager
def explained(job: Job, network: nn.Module, images: int) -> Iterator[None]:
    """Turn a lack of memory into an error that says what was needed and what to change.

    Args:
        job: the run, with the size of the images.
        network: its network.
        images: in a batch of this process.

    Raises:
        InputError: in place of what torch raises.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        peak = peak_mib(job.process.device)
        traceback.clear_frames(error.__traceback__)  # they hold the tensors of the step
        raise InputError(explanation(job, network, images, peak)) from None


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether an exception tells of memory that could not be had, on a GPU or beside it."""
    return isinstance(error, MemoryError | torch.OutOfMemoryError) or any(
        sign in str(error).lower() for sign in SIGNS
    )


def explanation(job: Job, network: nn.Module, images: int, peak: int) -> str:
    """Return the message for `images` in a batch that did not fit; `peak` is in MiB."""
    recipe, size, processes = job.recipe, job.preprocessing.input_size, job.process.world_size
    shared = f", {processes} processes" if processes > 1 else ""
    held = "tensors" if job.process.device.type == "cuda" else "the process"
    text = (
        f"out of memory: a step on {images} images of {size} x {size} pixels (batch_size={recipe.batch_size}, "
        f"accumulation={recipe.accumulation}{shared}); {held} took {peak:,} MiB before it failed. "
    )
    try:
        room = room_bytes(job)  # before the trial, for which it makes room
        with without_onednn():
            step = step_memory(network, size, job)
    except (RuntimeError, MemoryError):  # there is not even memory for a trial
        return f"{text}Give a smaller batch_size, a larger accumulation or a smaller input_size"
    need = (step.fixed + images * step.per_image) / MIB
    fits = min(step.images_in(room), images - 1)
    return (
        f"{text}By estimate the step needs {need:,.0f} MiB, {room / MIB:,.0f} MiB are free and {fits} images fit. "
        f"Give {' or '.join(remedies(job, fits))}"
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


def remedies(job: Job, fits: int) -> list[str]:
    """Return the settings with which a step of each process has at most `fits` images at once."""
    recipe, processes = job.recipe, job.process.world_size
    found = []
    if fits >= 2:
        round_number = fits // 8 * 8 or fits
        found.append(f"batch_size={round_number * recipe.accumulation * processes}")
    for accumulation in range(recipe.accumulation + 1, recipe.batch_size // 2 + 1):
        images, rest = divmod(recipe.batch_size, accumulation * processes)
        if not rest and 2 <= images <= fits:
            found.append(f"accumulation={accumulation} (the same batch in smaller parts)")
            break
    return [*found, "a smaller input_size"]


def largest_batch(job: Job, network: nn.Module) -> int:
    """Return by estimate the largest batch_size for which the memory suffices that is free now, for bench."""
    room = room_bytes(job)
    images = step_memory(network, job.preprocessing.input_size, job).images_in(room)
    return images * job.recipe.accumulation * job.process.world_size


def step_memory(network: nn.Module, size: int, job: Job) -> StepMemory:
    """Estimate the memory of a training step on images of `size` pixels from two small steps of a copy."""
    trial = copy.deepcopy(network).train()
    layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
    few, more = (
        _peak_of_step(
            trial, torch.zeros(n, 3, size, size, device=job.process.device), job.recipe.precision, layout
        )
        for n in TRIAL
    )
    per_image = max(more - few, 1) / (TRIAL[1] - TRIAL[0])
    return StepMemory(OVERHEAD * max(few - TRIAL[0] * per_image, 0), OVERHEAD * per_image)


def _peak_of_step(network: nn.Module, images: Tensor, precision: str, layout: torch.memory_format) -> int:
    """Return the most bytes of tensors that exist at once in a forward and backward pass."""
    with Allocations() as allocations:
        with autocast(images.device, precision):
            logits = network.forward(
                images.contiguous(memory_format=layout) + 0
            )  # not what torch.compile made
        logits.float().square().mean().backward()
    network.zero_grad(set_to_none=True)
    return allocations.peak


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


def room_bytes(job: Job) -> float:
    """Return the bytes that this process may still take on its device, once freed memory is given back."""
    device = job.process.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    kept = give_back_freed_memory()
    limits = [_available(), *_in_group(), *_addresses_left(kept)]
    return min(limits) / job.process.local_world_size


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


def _available() -> float:
    """Return the bytes that Linux counts as available; elsewhere there is no limit known."""
    with suppress(OSError, StopIteration):
        return next(_kib(Path("/proc/meminfo"), "MemAvailable")) * 2**10
    return float("inf")


def _in_group() -> list[float]:
    """Return the bytes that the limit of a container leaves, where there is one."""
    with suppress(OSError, ValueError, KeyError):
        folder = Path("/sys/fs/cgroup")
        limit, used = (int((folder / f"memory.{name}").read_text()) for name in ("max", "current"))
        counts = dict(line.split() for line in (folder / "memory.stat").read_text().splitlines())
        return [limit - used + int(counts["file"])]  # files that were read make room when it is needed
    return []


def _addresses_left(kept: int) -> list[float]:
    """Return the bytes of addresses that ulimit -v leaves, where it is set; `kept` are free already."""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return []
    with suppress(OSError, StopIteration):
        return [limit - next(_kib(Path("/proc/self/status"), "VmSize")) * 2**10 + kept]
    return []
