"""Random numbers that depend only on a key, not on other random draws."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator

MOVES, RECTANGLES, NOISE = range(3)  # first in each key, so that the generators draw different numbers


def seed_from(*key: int) -> int:
    """Return a seed below 2 ** 31 derived from `key`, integers of 0 or more."""
    return int(np.random.SeedSequence(key).generate_state(1)[0]) >> 1


def generator(*key: int, device: torch.device = torch.device("cpu")) -> torch.Generator:
    """Return a torch generator seeded with `key`."""
    return torch.Generator(device).manual_seed(seed_from(*key))


def seed_global(*key: int, device: torch.device) -> None:
    """Seed the global generators of Python, NumPy and torch (on the CPU and on `device`) with `key`."""
    number = seed_from(*key)
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":  # torch.manual_seed would query all devices, which is slow without any
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Seed Python, NumPy and torch (CPU) with `key` within the context; restore their states afterwards."""
    before = random.getstate(), get_bit_generator(), torch.get_rng_state()
    sequence = np.random.SeedSequence(key)
    seed = int(sequence.generate_state(1)[0])
    random.seed(seed)
    set_bit_generator(np.random.PCG64(sequence))  # ten times faster than saving NumPy's state
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPU too
    try:
        yield
    finally:
        random.setstate(before[0])
        set_bit_generator(before[1])
        torch.set_rng_state(before[2])
