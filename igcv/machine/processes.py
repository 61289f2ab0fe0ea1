"""Distributed processes (torchrun): rank, device and collective operations. Other modules handle one process only."""

import os
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.rendezvous import rendezvous
from torch.nn.parallel import DistributedDataParallel

from igcv.errors import InputError, SharedError
from igcv.terminal import counted

T = TypeVar("T")


@dataclass(frozen=True)
class Process:
    """This process and its rank; rank 0 of 1 without torchrun."""

    device: torch.device
    rank: int = 0
    world_size: int = 1
    local_rank: int = 0  # rank among the processes of this node
    local_world_size: int = 1

    @property
    def is_main(self) -> bool:
        return self.rank == 0


def choose_device(name: str) -> torch.device:
    """Return the device of a name ("cpu", "cuda", "cuda:1", "mps"); "auto" selects the best available device."""
    if name == "auto":
        cuda_or_mps = (
            "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
        )
        return torch.device(cuda_or_mps)
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise InputError(f"device: got '{name}', expected auto, cpu, cuda, cuda:N or mps") from error
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if not available.get(device.type, False):
        raise InputError(f"device '{name}' is not available on this machine. Give auto or cpu.")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        count = counted(torch.cuda.device_count(), "GPU")
        raise InputError(f"device '{name}' does not exist: this machine has {count}")
    return device


@contextmanager
def process_group(device_name: str = "auto") -> Iterator[Process]:
    """Join the process group of torchrun, or run as the only process."""
    device, alone = choose_device(device_name), not dist.is_torchelastic_launched()
    if device.type == "cuda":
        device = device if alone else choose_device(f"cuda:{os.environ['LOCAL_RANK']}")
        torch.cuda.set_device(device.index or 0)  # streams, events and seeds use the current device
    if alone:
        yield Process(device)
        return
    store, rank, world_size = next(rendezvous("env://"))
    if os.environ["LOCAL_WORLD_SIZE"] == os.environ["WORLD_SIZE"]:
        # After a restart, the store of torchrun still holds the addresses of the previous processes. (Several torchruns
        # count restarts separately. TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1 then gives each start a new store.)
        store = dist.PrefixStore(f"start{os.environ.get('TORCHELASTIC_RESTART_COUNT', 0)}", store)
    backend = "cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo"
    dist.init_process_group(backend, store=store, rank=rank, world_size=world_size)
    try:
        local_rank, local_world_size = (int(os.environ[f"LOCAL_{name}"]) for name in ("RANK", "WORLD_SIZE"))
        yield Process(device, rank, world_size, local_rank, local_world_size)
    finally:
        dist.destroy_process_group()


def parallel(model: nn.Module, process: Process, sync_batch_norm: bool, accumulation: int) -> nn.Module:
    """Return `model` for distributed training, with gradients averaged over all processes.

    Args:
        model: the network, with the same parameters and buffers in every process.
        process: this process; the only process gets `model` back unchanged.
        sync_batch_norm: replace the batch norms in `model` by synchronized batch norms, in place.
        accumulation: number of backward passes per optimizer step.
    """
    if process.world_size == 1:
        return model
    if sync_batch_norm:
        model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    ids = [process.device.index] if process.device.type == "cuda" else None
    # torch also compares the strides of dimensions with one element, which have no effect, and warns if they differ.
    warnings.filterwarnings("ignore", "Grad strides do not match bucket view strides")
    # The graph is static if every backward pass exchanges gradients.
    shared = DistributedDataParallel(
        model, device_ids=ids, gradient_as_bucket_view=True, static_graph=accumulation == 1
    )
    # By default, each step sends the running statistics of batch norm. Training does not read them: sending them once
    # per epoch is enough (share_buffers). Set here because the name of the argument depends on the version of torch.
    shared.broadcast_buffers = False
    return shared


@contextmanager
def together() -> Iterator[None]:
    """Raise an InputError of one process in all processes, so that none waits indefinitely."""
    error: InputError | None = None
    try:
        yield
    except InputError as caught:
        error = caught
    if dist.is_initialized():
        messages = gather(str(error) if error else None)
        error = next((SharedError(message) for message in messages if message), None)
    if error:
        raise error


def first_on_machine(process: Process, make: Callable[[], T]) -> T:
    """Return the result of `make`. One process per node calls it before the others, because it may download files."""
    with together():
        made = make() if process.local_rank == 0 else None
    with together():
        return make() if made is None else made


def gather(value: T) -> list[T]:
    """Return the values of all processes, in the order of their ranks."""
    values = [value]
    if dist.is_initialized():
        values *= dist.get_world_size()
        dist.all_gather_object(values, value)
    return values


def highest(*values: int) -> list[int]:
    """Return the maximum of each number over all processes. The exchange is fast enough for every step."""
    if not dist.is_initialized():
        return list(values)
    numbers = torch.tensor(values)  # on the CPU, without waiting for a GPU
    dist.all_reduce(numbers, dist.ReduceOp.MAX)
    return numbers.tolist()


def from_main(value: T) -> T:
    """Return the value of rank 0 in all processes."""
    values = [value]
    if dist.is_initialized():
        dist.broadcast_object_list(values, 0)
    return values[0]


def share_buffers(*modules: nn.Module | None) -> None:
    """Replace the buffers of all processes by their mean, except integer buffers, which are equal.

    The running statistics of one process cover only its own images. The mean covers the images of all processes.
    """
    if dist.is_initialized():
        for buffer in (b for module in modules if module is not None for b in module.buffers()):
            if buffer.is_floating_point():
                sum_over_processes(buffer).div_(dist.get_world_size())


def sum_over_processes(tensor: Tensor) -> Tensor:
    """Sum `tensor` over all processes, in place."""
    if dist.is_initialized():
        dist.all_reduce(tensor)
    return tensor
