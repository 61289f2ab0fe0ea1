"""Random numbers that follow from what they are for, never from what else draws some."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from numpy.random.mtrand import get_bit_generator, set_bit_generator

MOVES, RECTANGLES, NOISE = range(3)  # first in the keys of generators, that none repeats another's numbers


def seed_from(*key: int) -> int:
    """A seed below 2 ** 31 that follows from `key`, numbers of 0 or more."""
    return int(np.random.SeedSequence(key).generate_state(1)[0]) >> 1


def generator(*key: int, device: torch.device = torch.device("cpu")) -> torch.Generator:
    """A generator of torch whose numbers follow from `key`."""
    return torch.Generator(device).manual_seed(seed_from(*key))


def seed_global(*key: int, device: torch.device) -> None:
    """Make the global random numbers of python, numpy and torch on the CPU and on `device` follow from `key`."""
    number = seed_from(*key)
    random.seed(number)
    np.random.seed(number)
    torch.default_generator.manual_seed(number)
    if device.type == "cuda":  # torch.manual_seed would ask for all devices, and be slow where there is none
        torch.cuda.manual_seed(number)
    elif device.type == "mps":
        torch.mps.manual_seed(number)


@contextmanager
def seeded(*key: int) -> Iterator[None]:
    """Random numbers of python, numpy and torch (CPU) that follow from `key`; their states are put back."""
    before = random.getstate(), get_bit_generator(), torch.get_rng_state()
    sequence = np.random.SeedSequence(key)
    seed = int(sequence.generate_state(1)[0])
    random.seed(seed)
    set_bit_generator(np.random.PCG64(sequence))  # ten times faster than saving numpy's state
    torch.default_generator.manual_seed(seed)  # torch.manual_seed would reseed the GPU too
    try:
        yield
    finally:
        random.setstate(before[0])
        set_bit_generator(before[1])
        torch.set_rng_state(before[2])
