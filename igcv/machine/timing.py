"""Clocks: one that waits for the device, and the shortest times of several calls measured alternately."""

import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch

Call = Callable[[], Any]
SHORTEST_S = 2e-3  # of one measurement
# Measurements of each, in turns, of which the shortest counts, as noise only ever adds: so many of those that have
# taken at most so many times as long as the fastest. What may win is measured most often.
ROUNDS = ((9, math.inf), (15, 1.15), (20, 1.05))


def now(device: torch.device) -> float:
    """Return the seconds, once the device has done what it was given."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def shortest_times(runs: Sequence[Call]) -> list[float]:
    """The shortest time of each run, in seconds, all measured in turns (see `ROUNDS`)."""
    for run in runs:
        run()
    times = [_time(run, 1) for run in runs]
    repeats = max(1, round(SHORTEST_S / min(times)))
    for count, margin in ROUNDS:
        left = [i for i, taken in enumerate(times) if taken <= margin * min(times)]
        for _ in range(count):
            for i in left:
                times[i] = min(times[i], _time(runs[i], repeats))
    return times


def _time(run: Call, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats
