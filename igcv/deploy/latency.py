"""How long networks take: each in a process of its own, alternately on the same machine.

Every network has a process, so that its peak memory is its own. In each round each one runs for a moment while the
others wait, so that they all see the same machine; figures are medians over the rounds, with the smallest and largest.
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
from igcv.engines.opened import card_of, is_exported, open_session, takes_pixels
from igcv.engines.session import Session
from igcv.engines.table import engine as find_engine
from igcv.errors import InputError
from igcv.machine.memory import keep_freed_memory, peak_mib
from igcv.machine.threads import using_threads
from igcv.models import build_model, default_input_size
from igcv.weights.card import Card
from igcv.weights.pretrained import weights_names

CPU = torch.device("cpu")
ROUNDS = 15
ROUND_S = 0.1  # of one network in one round
PATIENCE_S = 10  # with a process that has been told to end
MATRIX = 1024  # side of the square matrices whose product is the measure of the machine


@dataclass(frozen=True)
class LatencyEntry:
    """A network to be measured.

    Attributes:
        label: what it is called.
        open: makes its session; can be sent to another process.
        shape: of its input, without the batch.
        uint8: whether it takes bytes.
        multiply_adds: of one image, as published; None if unknown.
        keeps_memory: whether glibc keeps freed blocks (see `keep_freed_memory`); matters to PyTorch.
    """

    label: str
    open: Callable[[], Session]
    shape: tuple[int, ...]
    uint8: bool = False
    multiply_adds: int | None = None
    keeps_memory: bool = False


@dataclass(frozen=True)
class Latency:
    """What was measured of a network.

    Attributes:
        label: its name.
        times_ms: of one batch, one value a round, milliseconds.
        images_per_s: from the median.
        memory_mib: what opening and running it added to the peak memory of its process, MiB.
        share: of the machine's measured matrix-multiply rate that the published multiply-adds reach, 0 to 1.
    """

    label: str
    times_ms: tuple[float, ...]
    images_per_s: float
    memory_mib: float
    share: float | None

    @property
    def median_ms(self) -> float:
        """Milliseconds of one batch."""
        return median(self.times_ms)


def latency_entry(
    what: str,
    engine: str | None,
    threads: int,
    batch_size: int,
    form: str = AUTO,
    input_size: int | None = None,
) -> LatencyEntry:
    """A network by name (with fresh weights), run folder, weights file or exported file.

    Raises:
        InputError: if there is no such network, or `engine` cannot run it.
    """
    if is_exported(what):
        return _file(what, engine, threads, input_size)
    chosen = engine or "torch"
    find_engine(chosen)
    card = None if is_name(what) else load(what).card
    size = input_size or (default_input_size(what) if card is None else card.input_size)
    opener = partial(folded_session, what, chosen, threads, batch_size, form, size)
    cost = (model_cost(what, 1000, size) if card is None else _cost(card, size)).multiply_adds
    return LatencyEntry(f"{what}, {chosen}, {form}", opener, (3, size, size), multiply_adds=cost)


def _file(what: str, engine: str | None, threads: int, input_size: int | None) -> LatencyEntry:
    """An exported file as an entry."""
    if not Path(what).is_file():
        raise InputError(
            f"there is no file {what}; give a file of igcv export, a run, weights or a network's name"
        )
    if input_size is not None:
        raise InputError(f"{what} has its input size already; leave out --input-size")
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
    """Whether this is the name of a network rather than a file, a folder or weights with a name."""
    return not (Path(what).exists() or what.endswith(".safetensors") or what in weights_names())


def folded_session(what: str, engine: str, threads: int, batch_size: int, form: str, size: int) -> Session:
    """The session of a network by name or from a file, folded."""
    torch.set_num_threads(threads)
    model = build_model(what, input_size=size).eval() if is_name(what) else load(what).model
    folded = fold(model, form, engine=engine, input_size=size, batch_size=batch_size, threads=threads)
    return session_of(folded, torch.zeros(1, 3, size, size), engine, threads)


def time_networks(
    entries: Sequence[LatencyEntry], batch_size: int, threads: int, rounds: int = ROUNDS
) -> list[Latency]:
    """Measure networks alternately.

    Raises:
        InputError: if one cannot be opened or run.
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
    """How many times as long one takes as the other: median, smallest and largest of the ratios within rounds."""
    values = [a / b for a, b in zip(of.times_ms, to.times_ms, strict=True)]
    return median(values), min(values), max(values)


def matrix_rate(threads: int) -> float:
    """Floating-point operations per second of the best float32 matrix product of several."""
    a, times = torch.randn(MATRIX, MATRIX), []
    with using_threads(threads):
        for _ in range(20):
            start = time.perf_counter()
            a @ a
            times.append(time.perf_counter() - start)
    return 2 * MATRIX**3 / min(times)


@contextmanager
def processes(entries: Sequence[LatencyEntry], batch_size: int, threads: int) -> Iterator[list[Connection]]:
    """A process for each entry, ready to run; all end with the block."""
    context = multiprocessing.get_context("forkserver")
    # Each process then starts in a moment, with everything imported and nothing run.
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
            _ask(ours, 1)  # one after the other: opening takes the whole machine
        yield connections
    finally:
        for ours in connections:
            ours.close()  # which each process takes as the end
        for process in started:
            process.join(PATIENCE_S)
            if process.is_alive():
                process.kill()


def _ask(connection: Connection, runs: int) -> float:
    """The seconds of so many runs, or with 0 the memory."""
    connection.send(runs)
    try:
        answer: Any = connection.recv()
    except EOFError:
        raise InputError("a process that measures a network ended; is there enough memory?") from None
    if isinstance(answer, Exception):
        raise InputError(str(answer))
    return answer


def _serve(connection: Connection, c: LatencyEntry, batch_size: int, threads: int) -> None:
    """An entry's process: answers with the seconds of the runs asked for."""
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
    except Exception as error:  # noqa: BLE001 - whatever went wrong, the first process says it
        connection.send(error if isinstance(error, InputError) else InputError(f"{c.label}: {error}"))
