"""Campaign of kills: runs that are killed repeatedly must end like an uninterrupted run."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from igcv.training.run import SUMMARY
from studies.soak.lives import SAVE_MINUTES, SETTINGS, live, same, settle


@dataclass
class Kills:
    """Results of a campaign of kills."""

    processes: int
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    in_epoch: int = 0  # times a run resumed in the middle of an epoch
    different: int = 0  # runs whose outcome differs from the uninterrupted run
    seconds: float = 0.0


def kill_runs(data: Path, folder: Path, processes: int, kills: int, seed: int) -> Kills:
    """Kill runs in `folder` at random moments, `kills` times or more, and resume each until it is complete."""
    rng, begun, found = random.Random(seed), time.monotonic(), Kills(processes)
    live(SETTINGS, data, folder / "alone", processes, rng)
    # The first run includes the import time; the second run gives the duration of a run.
    again = live(SETTINGS, data, folder / "again", processes, rng)
    expected = settle(folder / "alone")
    assert same(settle(folder / "again"), expected), "two uninterrupted runs differ"
    while found.kills.total() < kills or not found.in_epoch:
        run, found.runs = folder / f"run{found.runs}", found.runs + 1
        while True:
            settings = (*SETTINGS, f"save_minutes={rng.choice(SAVE_MINUTES)}")
            lived = live(settings, data, run, processes, rng, again.seconds)
            found.in_epoch += lived.in_epoch
            if lived.killed_by is not None:
                found.kills[lived.killed_by.name] += 1
            if lived.killed_by is None or (run / SUMMARY).exists():  # killed after the run was complete
                break
        found.different += not same(settle(run), expected)
    found.seconds = time.monotonic() - begun
    return found
