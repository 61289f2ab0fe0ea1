"""Concurrent, resumable trainings."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

from igcv.training import load_recipe
from igcv.training.run import METRICS, RECIPE, SUMMARY, has_state
from studies.table.plan import Training

LAST_WORDS = 400  # characters of a failed run's output to print
GRACE_S = 60.0  # seconds that a run may take to save when the time is up


class Tally(NamedTuple):
    """Number of trainings that are done, failed and left."""

    done: int
    failed: int
    left: int


def run_all(
    trainings: Sequence[Training],
    runs: Path,
    results: Path,
    at_once: int,
    seconds: float,
    say: Callable[[str], None],
) -> Tally:
    """Run or resume trainings concurrently until all are done or the time is up. Copy results after each training.

    Args:
        trainings: trainings in order.
        runs: parent folder of the run folders.
        results: parent folder of the result folders.
        at_once: number of concurrent trainings.
        seconds: time after which running trainings save and end.
        say: callback for progress messages.

    Returns:
        The number of trainings that are done, that failed in this call, and that are left.
    """
    waiting = [training for training in trainings if not is_done(training, runs, results)]
    done, failed = len(trainings) - len(waiting), 0
    running: dict[Training, subprocess.Popen[bytes]] = {}
    say(f"{done} of {len(trainings)} trainings are done")
    deadline = time.monotonic() + seconds
    try:
        while (waiting or running) and time.monotonic() < deadline:
            while waiting and len(running) < at_once:
                training = waiting.pop(0)
                running[training] = start(training, runs, at_once)
            for training in [t for t, process in running.items() if process.poll() is not None]:
                if running.pop(training).returncode == 0:
                    done += 1
                    say(f"{keep(training, runs, results)} ({done} of {len(trainings)} done)")
                else:
                    failed += 1
                    say(f"{training.name} failed: {last_words(runs / f'{training.name}.log')}")
            time.sleep(0.2)
    finally:
        stop(running.values())
    done += sum(is_done(training, runs, results) for training in running)
    return Tally(done, failed, len(trainings) - done - failed)


def train_command(settings: Sequence[str], folder: Path) -> list[str]:
    """Return the command line of `igcv train` for a separate process."""
    return [sys.executable, "-m", "igcv", "train", *settings, "--out", str(folder)]


def start(training: Training, runs: Path, at_once: int) -> subprocess.Popen[bytes]:
    """Start or resume a training, with its output in a log next to its folder.

    A single training uses all cores. Concurrent trainings use one core each.
    """
    folder = runs / training.name
    folder.parent.mkdir(parents=True, exist_ok=True)
    command = train_command(training.arguments, folder)
    threads = {"OMP_NUM_THREADS": "1"} if at_once > 1 else {}
    going_on = ["--resume"] if has_state(folder) else []
    with open(runs / f"{training.name}.log", "ab") as log:
        return subprocess.Popen(
            [*command, *going_on],
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # `stop` forwards Ctrl-C once
            env={**threads, **os.environ},
        )


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Send SIGTERM, upon which runs save and end, and wait for the processes."""
    processes = [process for process in processes if process.poll() is None]
    for process in processes:
        process.send_signal(signal.SIGTERM)
    for process in processes:
        try:
            process.wait(GRACE_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def is_done(training: Training, runs: Path, results: Path) -> bool:
    """Return whether a training is complete. Copy its results if they are missing."""
    if not (results / training.name / SUMMARY).is_file() and (runs / training.name / SUMMARY).is_file():
        keep(training, runs, results)
    return (results / training.name / SUMMARY).is_file()


def keep(training: Training, runs: Path, results: Path) -> str:
    """Copy the recipe, metrics and summary (last) of a finished run to the results, and return a progress message.

    The copies contain the name of the data set instead of its path.
    """
    run, target = runs / training.name, results / training.name
    target.mkdir(parents=True, exist_ok=True)
    recipe = load_recipe(run / RECIPE, data=training.data.name)
    (target / RECIPE).write_text(recipe.to_toml())
    shutil.copyfile(run / METRICS, target / METRICS)
    summary = json.loads((run / SUMMARY).read_text()) | {"data": training.data.name}
    (target / SUMMARY).write_text(json.dumps(summary, indent=2) + "\n")
    return f"{training.name}: {summary['last']['top1']:.2f} % after {summary['epochs']} epochs"


def last_words(log: Path) -> str:
    """Return the end of a run's output."""
    return log.read_text(errors="replace").strip()[-LAST_WORDS:]
