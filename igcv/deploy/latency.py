"""Latency measurements: networks run alternately on the same machine, each in its own process.

Separate processes give the peak memory of each network. In each round, every network runs briefly while the others
wait, so all networks see the same machine state. The results are the median, minimum and maximum over the rounds.
"""

import multiprocessing
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from igcv.analysis import Cost, model_cost, network_cost
from igcv.classifier import load, network_of
from igcv.deploy.folding.plan import AUTO
from igcv.deploy.inference import fold
from igcv.deploy.writers.session import session_of
from igcv.engines.opened import SUFFIXES, card_of, is_exported, open_session, takes_pixels
from igcv.engines.session import Session
from igcv.engines.table import check_timed
from igcv.engines.table import engine as find_engine
from igcv.errors import InputError
from igcv.machine.memory import keep_freed_memory, peak_mib
from igcv.machine.threads import using_threads
from igcv.models import build_model, default_input_size
from igcv.weights.card import Card
from igcv.weights.pretrained import weights_names

CPU = torch.device("cpu")
ROUNDS = 15
ROUND_S = 0.1  # seconds per network and round
PATIENCE_S = 10  # seconds until a process that does not exit is killed
MATRIX = 1024  # side of the matrices that measure the matrix-multiply throughput


@dataclass(frozen=True)
class LatencyEntry:
    """Network to measure.

    Attributes:
        label: name for tables.
        open: function that opens its session; can be pickled.
        shape: shape of its input, without the batch.
        uint8: whether the session takes uint8 images.
        multiply_adds: multiply-adds per image, counted as in the papers; None if unknown.
        keeps_memory: whether glibc malloc keeps freed memory (see `keep_freed_memory`), which affects PyTorch.
    """

    label: str
    open: Callable[[], Session]
    shape: tuple[int, ...]
    uint8: bool = False
    multiply_adds: int | None = None
    keeps_memory: bool = False


@dataclass(frozen=True)
class Latency:
    """Measured latency of a network.

    Attributes:
        label: name of the network.
        times_ms: time per batch in milliseconds, one value per round.
        images_per_s: throughput in images per second, from the median time.
        memory_mib: increase of the peak memory of the process by opening and running the network, in MiB.
        share: throughput of the network's multiply-adds as a fraction of the measured matrix-multiply throughput;
            None if the multiply-adds are unknown.
    """

    label: str
    times_ms: tuple[float, ...]
    images_per_s: float
    memory_mib: float
    share: float | None

    @property
    def median_ms(self) -> float:
        """Median time per batch, in milliseconds."""
        return median(self.times_ms)


def latency_entry(
    what: str,
    engine: str | None,
    threads: int,
    batch_size: int,
    form: str = AUTO,
    input_size: int | None = None,
) -> LatencyEntry:
    """Return the entry of a network by name (with random weights), a run folder, a weights file or an exported file.

    Raises:
        InputError: if the network does not exist, or `engine` cannot run it.
    """
    if is_exported(what):
        return _file(what, engine, threads, input_size)
    chosen = engine or "torch"
    check_timed(chosen)
    find_engine(chosen)
    card = None if is_name(what) else load(what).card
    size = input_size or (default_input_size(what) if card is None else card.input_size)
    opener = partial(folded_session, what, chosen, threads, batch_size, form, size)
    cost = (model_cost(what, 1000, size) if card is None else _cost(card, size)).multiply_adds
    return LatencyEntry(f"{what}, {chosen}, {form}", opener, (3, size, size), multiply_adds=cost)


def _file(what: str, engine: str | None, threads: int, input_size: int | None) -> LatencyEntry:
    """Return the entry of an exported file."""
    if not Path(what).exists():
        raise InputError(
            f"file not found: '{what}'. Give an exported file, a run folder, weights or the name of a network."
        )
    if input_size is not None:
        raise InputError(f"the input size of '{what}' is fixed. Omit --input-size.")
    check_timed(engine or SUFFIXES[Path(what).suffix])
    opener = partial(open_session, Path(what), engine, threads)
    card = card_of(opener(), Path(what))
    size, inside = card.input_size, takes_pixels(card)
    label = f"{what}, {engine}" if engine else what
    cost = _cost(card, size).multiply_adds
    shape = (size, size, 3) if inside else (3, size, size)
    return LatencyEntry(label, opener, shape, inside, cost)


def _cost(card: Card, size: int) -> Cost:
    """Return the cost of the network of a card on an image of `size` pixels."""
    return network_cost(network_of(card), torch.empty(1, 3, size, size, device="meta"))


def is_name(what: str) -> bool:
    """Return whether `what` is the name of a network, not a file, a folder or the name of weights."""
    return not (Path(what).exists() or what.endswith(".safetensors") or what in weights_names())


def folded_session(what: str, engine: str, threads: int, batch_size: int, form: str, size: int) -> Session:
    """Return the session of a folded network, given by name or file."""
    torch.set_num_threads(threads)
    model = build_model(what, input_size=size).eval() if is_name(what) else load(what).model
    folded = fold(model, form, engine=engine, input_size=size, batch_size=batch_size, threads=threads)
    return session_of(folded, torch.zeros(1, 3, size, size), engine, threads)


def time_networks(
    entries: Sequence[LatencyEntry], batch_size: int, threads: int, rounds: int = ROUNDS
) -> list[Latency]:
    """Measure networks alternately.

    Raises:
        InputError: if a network cannot be opened or run.
    """
    rate = matrix_rate(threads)
    with processes(entries, batch_size, threads) as connections:
        repeats = [max(1, round(ROUND_S / _ask(connection, 1))) for connection in connections]
        times: list[list[float]] = [[] for _ in entries]
        for _ in range(rounds):
            for connection, count, found in zip(connections, repeats, times, strict=True):
                found.append(1e3 * _ask(connection, count) / count)
        peaks = [_ask(connection, 0) for connection in connections]
    results = []
    for c, found, peak in zip(entries, times, peaks, strict=True):
        images_per_s = 1e3 * batch_size / median(found)
        share = None if c.multiply_adds is None else 2 * c.multiply_adds * images_per_s / rate
        results.append(Latency(c.label, tuple(found), images_per_s, peak, share))
    return results


def ratios(of: Latency, to: Latency) -> tuple[float, float, float]:
    """Return the median, minimum and maximum of the time ratios of two networks, round by round."""
    values = [a / b for a, b in zip(of.times_ms, to.times_ms, strict=True)]
    return median(values), min(values), max(values)


def matrix_rate(threads: int) -> float:
    """Return the float32 matrix-multiply throughput, in floating-point operations per second."""
    a, times = torch.randn(MATRIX, MATRIX), []
    with using_threads(threads):
        for _ in range(20):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
    return 2 * MATRIX**3 / min(times)


@contextmanager
def processes(entries: Sequence[LatencyEntry], batch_size: int, threads: int) -> Iterator[list[Connection]]:
    """Start a process per entry, and end the processes with the block."""
    context = multiprocessing.get_context("forkserver")
    # Processes then start fast, with all modules imported.
    context.set_forkserver_preload([__name__])
    connections, started = [], []
    try:
        for c in entries:
            ours, theirs = context.Pipe()
            process = context.Process(target=_serve, args=(theirs, c, batch_size, threads), daemon=True)
            process.start()
            started.append(process)
            theirs.close()
            connections.append(ours)
            _ask(ours, 1)  # open one network at a time: opening uses the whole machine
        yield connections
    finally:
        for ours in connections:
            ours.close()  # each process then exits
        for process in started:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()


def _ask(connection: Connection, runs: int) -> float:
    """Return the time of `runs` runs in seconds, or the memory in MiB if `runs` is 0."""
    connection.send(runs)
    try:
        answer: Any = connection.recv()
    except EOFError:
        raise InputError("a measuring process ended unexpectedly, possibly out of memory") from None
    if isinstance(answer, Exception):
        raise InputError(str(answer))
    return answer


def _serve(connection: Connection, c: LatencyEntry, batch_size: int, threads: int) -> None:
    """Serve the requests of `_ask` in the process of an entry."""
    try:
        torch.set_num_threads(threads)
        if c.keeps_memory:
            keep_freed_memory()
        before = peak_mib(CPU)
        session = c.open()
        rng = np.random.default_rng(0)
        images = rng.integers(0, 256, (batch_size, *c.shape), np.uint8)
        run = session.bind(images if c.uint8 else rng.standard_normal((batch_size, *c.shape), np.float32))
        run()
        while True:
            runs = connection.recv()
            if runs == 0:
                connection.send(peak_mib(CPU) - before)
                continue
            run()  # after the wait, caches are cold
            start = time.perf_counter()
            for _ in range(runs):
                run()
            connection.send(time.perf_counter() - start)
    except EOFError:
        return
    except Exception as error:  # noqa: BLE001 - the main process reports any error
        connection.send(error if isinstance(error, InputError) else InputError(f"{c.label}: {error}"))
