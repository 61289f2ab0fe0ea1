"""A clock that waits for the device."""

import time

import torch


def now(device: torch.device) -> float:
    """Return the seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()
