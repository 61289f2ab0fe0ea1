"""Memory of training: estimates, the largest batch that fits, and the error message for a lack of memory."""

import copy
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

import torch
from torch import Tensor, nn

from igcv.errors import InputError
from igcv.machine.memory import (
    MIB,
    Allocations,
    address_bytes,
    available_bytes,
    give_back_freed_memory,
    group_bytes,
    is_out_of_memory,
    peak_mib,
    without_onednn,
)
from igcv.machine.precision import autocast
from igcv.training.job import Job

OVERHEAD = 1.5  # factor for kernels and fragmentation on the tensors of a step, with some reserve
TRIAL = (2, 4)  # images of the two measured steps


class StepMemory(NamedTuple):
    """Peak bytes that a training step allocates, without weights and optimizer state."""

    fixed: float
    per_image: float

    def images_in(self, room: float) -> int:
        """Return the number of images that fit into `room` bytes."""
        return max(int((room - self.fixed) / self.per_image), 0)


@contextmanager
def explained(job: Job, network: nn.Module, images: int) -> Iterator[None]:
    """Context that replaces an out-of-memory error by an InputError with the required memory and a fix.

    Args:
        job: the run, with the image size.
        network: the network of the run.
        images: images in a batch of this process.

    Raises:
        InputError: a step runs out of memory.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        peak = peak_mib(job.process.device)
        traceback.clear_frames(error.__traceback__)  # the frames hold the tensors of the step
        raise InputError(explanation(job, network, images, peak)) from None


def explanation(job: Job, network: nn.Module, images: int, peak: int) -> str:
    """Return the error message for a batch of `images` that did not fit; `peak` is in MiB."""
    recipe, size, processes = job.recipe, job.preprocessing.input_size, job.process.world_size
    shared = f", {processes} processes" if processes > 1 else ""
    held = "tensors" if job.process.device.type == "cuda" else "the process"
    text = (
        f"out of memory: a step on {images} images of {size} x {size} pixels (batch_size={recipe.batch_size}, "
        f"accumulation={recipe.accumulation}{shared}); {held} used {peak:,} MiB before the failure. "
    )
    try:
        room = room_bytes(job)  # first, because it frees memory for the trial
        with without_onednn():
            step = step_memory(network, size, job)
    except (RuntimeError, MemoryError):  # not enough memory for the trial
        return f"{text}Give a smaller batch_size, a larger accumulation or a smaller input_size"
    need = (step.fixed + images * step.per_image) / MIB
    fits = min(step.images_in(room), images - 1)
    return (
        f"{text}Estimate: the step needs {need:,.0f} MiB, {room / MIB:,.0f} MiB are free, {fits} images fit. "
        f"Give {' or '.join(remedies(job, fits))}"
    )


def remedies(job: Job, fits: int) -> list[str]:
    """Return the settings with which a process has at most `fits` images in a micro-batch."""
    recipe, processes = job.recipe, job.process.world_size
    found = []
    if fits >= 2:
        round_number = fits // 8 * 8 or fits
        found.append(f"batch_size={round_number * recipe.accumulation * processes}")
    for accumulation in range(recipe.accumulation + 1, recipe.batch_size // 2 + 1):
        images, rest = divmod(recipe.batch_size, accumulation * processes)
        if not rest and 2 <= images <= fits:
            found.append(f"accumulation={accumulation} (the same batch in micro-batches)")
            break
    return [*found, "a smaller input_size"]


def largest_batch(job: Job, network: nn.Module) -> int:
    """Return the estimated largest batch_size that fits into the free memory."""
    room = room_bytes(job)
    images = step_memory(network, job.preprocessing.input_size, job).images_in(room)
    return images * job.recipe.accumulation * job.process.world_size


def step_memory(network: nn.Module, size: int, job: Job) -> StepMemory:
    """Estimate the memory of a training step on images of `size` pixels from two small steps of a network copy."""
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
    """Return the peak bytes of tensors in a forward and backward pass."""
    with Allocations() as allocations:
        with autocast(images.device, precision):
            logits = network.forward(images.contiguous(memory_format=layout) + 0)  # bypasses torch.compile
        logits.float().square().mean().backward()
    network.zero_grad(set_to_none=True)
    return allocations.peak


def room_bytes(job: Job) -> float:
    """Return the bytes that this process may still allocate on its device; first return freed memory to the system."""
    device = job.process.device
    if device.type == "cuda":
        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info(device)[0]
    kept = give_back_freed_memory()
    limits = [available_bytes(), *group_bytes(), *address_bytes(kept)]
    return min(limits) / job.process.local_world_size
