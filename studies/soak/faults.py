"""Campaigns with faults other than kills: full disks and damaged checkpoints."""

import random
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from igcv.training.run import PREVIOUS, STATE
from studies.soak.lives import SETTINGS, live, run_once, same, settle


@contextmanager
def small_disk(folder: Path, kib: int) -> Iterator[None]:
    """Mount a file system of `kib` KiB at the new folder `folder`; OSError if mounting is not allowed."""
    folder.mkdir()
    _command("mount", "-t", "tmpfs", "-o", f"size={kib}k", "tmpfs", str(folder))
    try:
        yield
    finally:
        _command("umount", str(folder))


def enlarge(folder: Path, kib: int) -> None:
    """Enlarge the file system mounted at `folder` to `kib` KiB."""
    _command("mount", "-o", f"remount,size={kib}k", str(folder))


def _command(*words: str) -> None:
    try:
        done = subprocess.run(words, capture_output=True, text=True)
    except FileNotFoundError as error:
        raise OSError(f"command not found: '{words[0]}'") from error
    if done.returncode:
        raise OSError(done.stderr.strip())


def full_disks(data: Path, folder: Path, expected: dict, sizes: list[int]) -> int:
    """Train on full disks: each run must stop with a plain error, and resume after the disk is enlarged.

    Args:
        data: the data set, one folder per class.
        folder: folder for the mounted disks.
        expected: outcome of a run with enough space (see `settle`).
        sizes: sizes of the disks in KiB.

    Returns:
        Number of runs with the outcome `expected`.
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
    """Damage a file as a crash of the file system can; return the kind of damage."""
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
    """Interrupt `count` runs, damage the newest checkpoint and resume; return how many ended as `expected`."""
    rng, good, done = random.Random(seed), 0, 0
    while done < count:
        out = folder / f"damaged{done}"
        lived = live([*SETTINGS, "save_minutes=0"], data, out, 1, rng, 3.0)
        if lived.killed_by is None:
            out.rename(out.with_name(f"{out.name}-whole{rng.random()}"))
        elif (out / PREVIOUS).is_file():
            damage(out / STATE, rng)
            code, log = run_once([*SETTINGS, "save_minutes=0"], data, out)
            assert code == 0, log
            good, done = good + same(settle(out), expected), done + 1
    return good
