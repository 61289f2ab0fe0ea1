"""Faults beside kills: a disk without space, and checkpoints that a file system has damaged."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igcv.training.run import PREVIOUS, STATE
from studies.soak.lives import SETTINGS, live, run_once, same, settle


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """A file system of so many KiB in `folder`; OSError where mounting one is not allowed."""
    folder.mkdir()
    _command("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield
    finally:
        _command("umount", str(folder))


def enlarge(folder: Path, kib: int) -> None:
    """Give a small disk more space."""
    _command("mount", "-o", f"remount,size={kib}k", str(folder))


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise OSError(f"there is no {words[0]}") from error
    if done.returncode:
        raise OSError(done.stderr.strip())


def full_disks(data: Path, folder: Path, expected: dict, sizes: list[int]) -> int:
    """Run on disks of these sizes in KiB; each has to stop with a plain error and to go on once there is space.

    Returns how many ended as the run that had space from the start, `expected`.
    """
    good = 0
    for size in sizes:
        disk = folder / f"disk{size}"
        with small_disk(disk, size):
            code, log = run_once([*SETTINGS, "save_minutes=0"], data, disk / "run")
            assert code == 2, f"a disk of {size} KiB was large enough"
            assert "No space left on device" in log, log
            enlarge(disk, 32 * 1024)
            code, log = run_once([*SETTINGS, "save_minutes=0"], data, disk / "run")
            assert code == 0, log
            good += same(settle(disk / "run"), expected)
    return good


def damage(path: Path, rng: random.Random) -> str:
    """Do to a file what a file system may after a crash; returns what it was."""
    content = bytearray(path.read_bytes())
    kind = rng.choice(("cut short", "emptied", "a bit flipped", "a block of zeros", "removed"))
    at = rng.randrange(len(content))
    if kind == "cut short":
        del content[at:]
    elif kind == "emptied":
        content.clear()
    elif kind == "a bit flipped":
        content[at] ^= 1 << rng.randrange(8)
    elif kind == "a block of zeros":
        block = slice(at // 512 * 512, at // 512 * 512 + 512)
        content[block] = bytes(len(content[block]))
    path.unlink()
    if kind != "removed":
        path.write_bytes(content)
    return kind


def damaged_checkpoints(data: Path, folder: Path, expected: dict, count: int, seed: int) -> int:
    """Stop a run in the middle, damage its newest checkpoint and go on; returns how many ended as `expected`."""
    rng, good, done = random.Random(seed), 0, 0
    while done < count:
        out = folder / f"damaged{done}"
        lived = live([*SETTINGS, "save_minutes=0"], data, out, 1, rng, 3.0)
        if lived.struck is None:
            out.rename(out.with_name(f"{out.name}-whole{rng.random()}"))
        elif (out / PREVIOUS).is_file():
            damage(out / STATE, rng)
            code, log = run_once([*SETTINGS, "save_minutes=0"], data, out)
            assert code == 0, log
            good, done = good + same(settle(out), expected), done + 1
    return good
