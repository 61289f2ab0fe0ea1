"""Many trainings side by side, in pieces: what is done stays done, what was interrupted goes on."""

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

LAST_WORDS = 400  # characters of a failed run's output that are shown
GRACE_S = 60.0  # for a run to save when the time is up


class Tally(NamedTuple):
    """How many trainings are done, failed and left."""

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
    """Run or resume trainings, several at a time, until all are done or the time is up; results come as they end.

    Args:
        trainings: what to train, the first first.
        runs: where their run folders are.
        results: where a folder of small files is left of each.
        at_once: how many at the same time.
        seconds: after which those that run are asked to save and end.
        say: is told what happens.

    Returns:
        How many trainings are done, failed just now, and are left to go on with.
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
    """`igcv train` in a process of its own."""
    return [sys.executable, "-m", "igcv", "train", *settings, "--out", str(folder)]


def start(training: Training, runs: Path, at_once: int) -> subprocess.Popen[bytes]:
    """Start a training or resume it; its output goes to a log next to its folder.

    A training that runs by itself takes all cores, others one each.
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
            start_new_session=True,  # Ctrl-C reaches them through `stop`, once
            env={**threads, **os.environ},
        )


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """Ask runs to save and end, and wait for them."""
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
    """Whether a training has come to its end; then it is among the results."""
    if not (results / training.name / SUMMARY).is_file() and (runs / training.name / SUMMARY).is_file():
        keep(training, runs, results)
    return (results / training.name / SUMMARY).is_file()


def keep(training: Training, runs: Path, results: Path) -> str:
    """Copy what is kept of a finished run among the results, the summary last; return a line that tells of it.

    The data set stands there by its name: where its files were is nobody's business.
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
    """The end of what a run printed."""
    return log.read_text(errors="replace").strip()[-LAST_WORDS:]
