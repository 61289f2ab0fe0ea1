"""Seconds from the start of `igcv train` to an accuracy, imports, compilation and decoding included."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igcv.errors import InputError
from igcv.training import read_metrics
from studies.table.run import last_words, train_command

LOOK_S = 0.02  # how often the log is looked at


def timed_run(settings: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Train in a process of its own; when each epoch was evaluated, in seconds from the start of the process.

    Args:
        settings: arguments of `igcv train`.
        folder: the run folder, a new one.

    Returns:
        "epoch", "seconds", "top1" in percent and "images_per_s" of each epoch.
    """
    if folder.exists():
        raise InputError(f"{folder} already holds a run; remove it to measure again")
    folder.parent.mkdir(parents=True, exist_ok=True)
    seen: list[dict[str, Any]] = []
    with open(folder.with_suffix(".log"), "wb") as log:
        start = time.monotonic()
        process = subprocess.Popen(train_command(settings, folder), stdout=log, stderr=log)
        running = True
        while running:
            running = process.poll() is None
            taken = time.monotonic() - start
            for row in read_metrics(folder)[len(seen) :]:
                seen.append(
                    {
                        "epoch": row["epoch"],
                        "seconds": round(taken, 2),
                        "top1": row["val_top1"],
                        "images_per_s": row["images_per_s"],
                    }
                )
            time.sleep(LOOK_S)
    if process.returncode:
        raise InputError(f"the training in {folder} failed: {last_words(folder.with_suffix('.log'))}")
    return seen


def seconds_to(target: float, epochs: Sequence[dict[str, Any]]) -> float | None:
    """When an accuracy was first reached; None if it was not."""
    return next((epoch["seconds"] for epoch in epochs if epoch["top1"] >= target), None)
