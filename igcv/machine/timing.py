"""Helpers for time measurements."""

import math
import time
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import nn

T = TypeVar("T")
Call = Callable[[], Any]
SHORTEST_S = 2e-3  # minimum duration of one measurement, in seconds
# Pairs (count, margin): take `count` measurements of each run whose time is at most `margin` times the fastest. The
# shortest time counts, because noise only adds time. The fastest candidates get the most measurements.
ROUNDS = ((9, math.inf), (15, 1.15), (20, 1.05))


def now(device: torch.device) -> float:
    """Return the time in seconds after the device has finished its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter()


def shortest_times(runs: Sequence[Call]) -> list[float]:
    """Return the shortest time of each run, in seconds, measured alternately (see `ROUNDS`)."""
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


def once_for_each(kinds: Mapping[str, Hashable], measure: Callable[[str], T]) -> dict[str, T]:
    """Return the result of `measure` for each name, with one call for all names of one kind.

    >>> once_for_each({"a": 1, "b": 2, "c": 1}, str.upper)
    {'a': 'A', 'b': 'B', 'c': 'A'}
    """
    found: dict[Hashable, T] = {}
    for name, kind in kinds.items():
        if kind not in found:
            found[kind] = measure(name)
    return {name: found[kind] for name, kind in kinds.items()}


@contextmanager
def left_as_it_was(network: nn.Module) -> Iterator[None]:
    """Restore the weights, running statistics and mode of a network at the end, and delete its gradients."""
    state = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    training = network.training
    try:
        yield
    finally:
        network.train(training).zero_grad(set_to_none=True)
        network.load_state_dict(state)
