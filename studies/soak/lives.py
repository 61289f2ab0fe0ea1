"""`igcv train` in real processes that can be killed, forked from a server that has imported the package."""

import multiprocessing
import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import NamedTuple

import torch

from igcv.commands.main import main
from igcv.training import read_metrics
from igcv.training.run import STATE, has_state
from igcv.training.state import decode
from igcv.weights import read_tensors

# Use everything that a checkpoint restores: mixing, EMA, gradient accumulation, dropout, data-loading workers.
SETTINGS = (
    *(
        "model=igcv3_w_010",
        "precision=float32",
        "input_size=16",
        "batch_size=12",
        "accumulation=2",
        "epochs=3",
        "lr=0.05",
        "seed=3",
    ),
    *("mixup=0.2", "cutmix=0.5", "label_smoothing=0.1", "ema_decay=0.9", "clip_grad_norm=1", "drop_rate=0.1"),
    *("augment=shift", "random_erasing=0.2", "randaugment=rand-m3-n1", "workers=1"),
)
SAVE_MINUTES = (0, 0, 0.002, 10)  # save after each step, every 0.12 s, or only between epochs
ENDS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
LIMIT_S = 120.0
# Modules that a run imports late: the server imports them once for all runs.
PRELOAD = (__name__, "torch.utils.tensorboard", "torchvision.transforms.v2", "plotly.graph_objects")
# Reproducible columns of the log; the other columns are times.
REPEATABLE = ("epoch", "train_loss", "val_loss", "val_top1", "val_balanced", "lr", "bad_images")


class Life(NamedTuple):
    """The end of one start of a run."""

    killed_by: signal.Signals | None  # signal that ended the processes; None if the run is complete
    codes: list[int]
    seconds: float
    in_epoch: bool  # the processes resumed in the middle of an epoch


def settle(folder: Path) -> dict[str, object]:
    """Return the reproducible outcome of a run: weights, state and metrics."""
    tensors = {name: read_tensors(folder / f"{name}.safetensors")[0] for name in ("last", "best", "state")}
    rows = [{key: row[key] for key in REPEATABLE} for row in read_metrics(folder)]
    return {"tensors": tensors, "rows": rows}


def same(first: dict, second: dict) -> bool:
    """Return whether two outcomes are bitwise identical."""
    if first["rows"] != second["rows"] or first["tensors"].keys() != second["tensors"].keys():
        return False
    for file, tensors in first["tensors"].items():
        others = second["tensors"][file]
        if tensors.keys() != others.keys() or not all(torch.equal(tensors[n], others[n]) for n in tensors):
            return False
    return True


def start(
    arguments: Sequence[str], processes: int, log: Path, before: Callable[[], None] | None = None
) -> list[BaseProcess]:
    """Start `igcv` like torchrun would.

    Args:
        arguments: command line of `igcv`.
        processes: number of processes.
        log: file for the output of all processes.
        before: function that each process calls first.
    """
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(list(PRELOAD))
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    started = [
        context.Process(target=_live, args=(rank, processes, port, list(arguments), str(log), before))
        for rank in range(processes)
    ]
    for process in started:
        process.start()
    return started


def ended(
    arguments: Sequence[str], processes: int, log: Path, before: Callable[[], None] | None = None
) -> list[int]:
    """Run `start` until all processes have ended; return their exit statuses."""
    running = start(arguments, processes, log, before)
    try:
        assert _ended(running, LIMIT_S), f"a process did not end; see {log}"
    finally:
        for process in running:
            _signal_group(process, signal.SIGKILL)
    return [int(process.exitcode or 0) for process in running]


def _live(
    rank: int, processes: int, port: int, arguments: list[str], log: str, before: Callable[[], None] | None
) -> None:
    os.setpgid(0, 0)  # one group with its data-loading workers
    # Background processes inherit handlers that ignore both signals.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    if processes > 1:
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": processes, "LOCAL_WORLD_SIZE": processes}
        place |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "soak"}
        os.environ.update({key: str(value) for key, value in place.items()})
    multiprocessing.set_start_method("fork", force=True)  # for the data-loading workers
    torch.set_num_threads(1)
    if before is not None:
        before()
    sys.argv = ["igcv", *arguments]
    main()


def run_once(settings: Sequence[str], data: Path, folder: Path, *more: str) -> tuple[int, str]:
    """Run `igcv train` in one process until it ends, resuming a run in `folder`; return exit status and output."""
    log = folder.parent.with_name(f"{folder.parent.name}-{folder.name}.out")
    log.unlink(missing_ok=True)
    (process,) = start(_arguments(settings, data, folder, *more), 1, log)
    process.join(LIMIT_S)
    assert process.exitcode is not None, f"{folder}: the process did not end; see {log}"
    return process.exitcode, log.read_text()


def _arguments(settings: Sequence[str], data: Path, folder: Path, *more: str) -> list[str]:
    resume = ["--resume"] if has_state(folder) else []
    return ["train", *settings, f"data={data}", "--out", str(folder), "--device", "cpu", *more, *resume]


def live(
    settings: Sequence[str],
    data: Path,
    folder: Path,
    processes: int,
    rng: random.Random,
    longest_s: float = 0,
) -> Life:
    """Start or resume a run; kill it at a random moment within `longest_s` seconds, unless `longest_s` is 0."""
    in_epoch = _in_epoch(folder)
    begun = time.monotonic()
    log = folder.with_suffix(".log")
    running = start(_arguments(settings, data, folder, "--quiet"), processes, log)
    try:
        killed_by = None
        if longest_s and not _ended(running, rng.uniform(0, longest_s)):
            killed_by = rng.choice(ENDS)
            _strike(running, killed_by, rng)
        assert _ended(running, LIMIT_S), f"{folder}: a process did not end after {killed_by}; see {log}"
    finally:
        for process in running:
            _signal_group(process, signal.SIGKILL)
    codes = [int(process.exitcode or 0) for process in running]
    assert 2 not in codes, f"{folder}: {codes}\n{log.read_text()[-2000:]}"
    return Life(killed_by if any(codes) else None, codes, time.monotonic() - begun, in_epoch)


def _in_epoch(folder: Path) -> bool:
    return (folder / STATE).is_file() and bool(decode(folder / STATE).progress)


def _strike(running: list[BaseProcess], killed_by: signal.Signals, rng: random.Random) -> None:
    """Send the signal: SIGKILL to one or more processes, other signals to all processes and their workers."""
    if killed_by != signal.SIGKILL:
        for process in running:
            _signal_group(process, killed_by)
        return
    victims = rng.sample(running, rng.randint(1, len(running)))
    for victim in victims:
        if rng.random() < 0.5:
            _signal_group(victim, killed_by)
        elif victim.pid and victim.is_alive():
            os.kill(victim.pid, killed_by)
    if not _ended(running, 10.0):  # the others wait for a killed process; torchrun would kill them
        for process in running:
            process.kill()


def _signal_group(process: BaseProcess, number: signal.Signals) -> None:
    try:
        os.killpg(process.pid or 0, number)
    except (ProcessLookupError, PermissionError):
        process.kill() if number == signal.SIGKILL else None


def _ended(running: list[BaseProcess], seconds: float) -> bool:
    end = time.monotonic() + seconds
    for process in running:
        process.join(max(end - time.monotonic(), 0))
    return not any(process.is_alive() for process in running)
