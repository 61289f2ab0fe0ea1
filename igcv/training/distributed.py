"""What changes with several processes (torchrun): rank, device, sums. Everything else knows one process only."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from igcv.errors import InputError


@dataclass(frozen=True)
class Process:
    """This process among all: rank 0 of 1 unless torchrun started it."""

    device: torch.device
    rank: int = 0
    world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def choose_device(name: str) -> torch.device:
    """The device of a name ("cpu", "cuda", "cuda:1", "mps"); "auto" takes the best one there is."""
    if name == "auto":
        cuda_or_mps = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
        return torch.device(cuda_or_mps)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"unknown device '{name}'; give auto, cpu, cuda, cuda:N or mps") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise InputError(f"device '{name}' is not available on this machine; give auto or cpu")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise InputError(f"device '{name}' does not exist; this machine has {torch.cuda.device_count()} GPUs")
    return device


@contextmanager
def process_group(device_name: str = "auto") -> Iterator[Process]:
    """Join the processes that torchrun started, or be the only one."""
    if not dist.is_torchelastic_launched():
        yield Process(choose_device(device_name))
        return
    device = choose_device(device_name)
    if device.type == "cuda":
        device = choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device)
    dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
    try:
        yield Process(device, dist.get_rank(), dist.get_world_size())
    finally:
        dist.destroy_process_group()


def parallel(model: nn.Module, process: Process, sync_batch_norm: bool, accumulation: int) -> nn.Module:
    """`model` with its gradients averaged over all processes, and if asked for its batch statistics too."""
    if process.world_size == 1:
        return model
    if sync_batch_norm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    ids = [process.device.index] if process.device.type == "cuda" else None
    # A graph is static where every backward pass exchanges gradients.
    return DistributedDataParallel(
        model, device_ids=ids, gradient_as_bucket_view=True, static_graph=accumulation == 1
    )


@contextmanager
def together() -> Iterator[None]:
    """A part in which one process may meet an InputError: then all of them raise it, instead of waiting for ever."""
    error: InputError | None = None
    try:
        yield
    except InputError as caught:
        error = caught
    if dist.is_initialized():
        messages: list[str | None] = [None] * dist.get_world_size()
        dist.all_gather_object(messages, str(error) if error else None)
        error = next((InputError(message) for message in messages if message), None)
    if error:
        raise error


def share_buffers(*modules: nn.Module | None) -> None:
    """Give all processes the first one's buffers: each gathers batch statistics of its own images."""
    if dist.is_initialized():
        for module in filter(None, modules):
            for buffer in module.buffers():
                dist.broadcast(buffer, 0)


def sum_over_processes(tensor: Tensor) -> Tensor:
    """The sum of `tensor` over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor
