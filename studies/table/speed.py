"""Seconds from the start of `igcv train` to an accuracy, including imports, compilation and decoding."""

import subprocess
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from igcv.errors import InputError
from igcv.training import read_metrics
from studies.table.run import last_words, train_command

LOOK_S = 0.02  # seconds between two reads of the metrics


def timed_run(settings: Sequence[str], folder: Path) -> list[dict[str, Any]]:
    """Train in a separate process and record the time of each evaluation.

    Args:
        settings: arguments of `igcv train`.
        folder: run folder; must not exist.

    Returns:
        "epoch", "seconds" since the start of the process, "top1" in percent and "images_per_s" of each epoch.

    Raises:
        InputError: if the folder exists, or the training fails.
    """
    if folder.exists():
        raise InputError(f"folder exists: '{folder}'. Remove the folder to measure again.")
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
        raise InputError(f"training in '{folder}' failed: {last_words(folder.with_suffix('.log'))}")
    return seen


def seconds_to(target: float, epochs: Sequence[dict[str, Any]]) -> float | None:
    """Return the seconds until an accuracy was first reached, or None if it was not reached."""
    return next((epoch["seconds"] for epoch in epochs if epoch["top1"] >= target), None)
