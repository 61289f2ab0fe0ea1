"""Available cores, and temporary changes of the number of PyTorch threads."""

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch


def available_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextmanager
def using_threads(count: int) -> Iterator[None]:
    """Set the number of PyTorch threads to `count`, and restore it afterwards, also after an error."""
    before = torch.get_num_threads()
    if before == count:  # setting the number costs microseconds
        yield
        return
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
