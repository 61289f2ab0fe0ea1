"""The cores that this process may use, and how many threads PyTorch computes with for a while."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def available_cores() -> int:
    """Return how many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Compute with `count` threads; afterwards with as many as before, also if something failed."""
    before = torch.get_num_threads()
    if before == count:  # setting the number costs microseconds
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
