"""Runs that are killed again and again, and have to end as one that was left alone."""

import random
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from igcv.training.run import SUMMARY
from studies.soak.lives import SAVE_MINUTES, SETTINGS, live, same, settle


@dataclass
class Kills:
    """What a campaign came to."""

    processes: int
    kills: Counter[str] = field(default_factory=Counter)
    runs: int = 0
    in_epoch: int = 0  # lives that went on in the middle of an epoch
    different: int = 0  # runs that ended otherwise than the one left alone
    seconds: float = 0.0


def kill_runs(data: Path, folder: Path, processes: int, kills: int, seed: int) -> Kills:
    """Kill runs in `folder` at random moments until there were `kills`, and let each come to its end."""
    rng, begun, found = random.Random(seed), time.monotonic(), Kills(processes)
    live(SETTINGS, data, folder / "alone", processes, rng)
    # The first one also waits for all that is imported; the second tells how long a life takes.
    again = live(SETTINGS, data, folder / "again", processes, rng)
    expected = settle(folder / "alone")
    assert same(settle(folder / "again"), expected), "a run that is left alone does not repeat itself"
    while found.kills.total() < kills or not found.in_epoch:
        run, found.runs = folder / f"run{found.runs}", found.runs + 1
        while True:
            settings = (*SETTINGS, f"save_minutes={rng.choice(SAVE_MINUTES)}")
            lived = live(settings, data, run, processes, rng, again.seconds)
            found.in_epoch += lived.in_epoch
            if lived.struck is not None:
                found.kills[lived.struck.name] += 1
            if lived.struck is None or (run / SUMMARY).exists():  # struck after all was done
                break
        found.different += not same(settle(run), expected)
    found.seconds = time.monotonic() - begun
    return found
