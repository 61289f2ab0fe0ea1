"""Fault tolerance of a run: kills, signals, a full disk, damaged checkpoints, a second run in its folder.

The tests use real processes, forked from a server. `make soak` runs longer versions (see docs/reliability.md).
"""

import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import torch

import igcv
from igcv.training import read_metrics
from igcv.training.checkpoint import Watch
from igcv.training.loop import Wish
from igcv.training.run import PREVIOUS, STATE, Run
from igcv.training.state import decode
from studies.soak.faults import damage, full_disks
from studies.soak.kills import kill_runs
from studies.soak.lives import LIMIT_S, SETTINGS, live, run_once, same, settle, start
from studies.soak.photos import write_digits
from tests.conftest import ONE_THREAD

STEPWISE = [*SETTINGS, "save_minutes=0"]


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of 48 training images: four steps per epoch."""
    return write_digits(tmp_path_factory.mktemp("photos"), train=24)


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of an uninterrupted run."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert live(SETTINGS, photos, out, 1, random.Random(0)).codes == [0]
    return out


@contextmanager
def running(data: Path, out: Path, *settings: str) -> Iterator[int]:
    """Train in another process, wait for the first checkpoint, and yield the process ID."""
    arguments = [
        "train",
        *STEPWISE,
        *settings,
        f"data={data}",
        "--out",
        str(out),
        "--device",
        "cpu",
        "--quiet",
    ]
    (process,) = start(arguments, 1, out.with_suffix(".log"))
    try:
        wait_for(out / STATE)
        yield process.pid or 0
        process.join(LIMIT_S)
    finally:
        process.kill()


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + LIMIT_S
    while not path.exists():
        assert time.monotonic() < deadline, f"{path} does not appear"
        time.sleep(0.01)


@pytest.mark.parametrize("processes, kills", [(1, 3), (2, 2), (3, 1)])
def test_killed_again_and_again(processes: int, kills: int, photos: Path, tmp_path: Path) -> None:
    found = kill_runs(photos, tmp_path, processes, kills, seed=processes)
    assert found.kills.total() >= kills
    assert found.different == 0


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_ends_a_run_that_is_saved(number: signal.Signals, photos: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    with running(photos, out, "epochs=1000") as pid:
        os.kill(pid, number)
    said = re.search(r"step (\d+) of epoch (\d+)", out.with_suffix(".log").read_text())
    assert said
    best = f", or use the best epoch so far: igcv predict {out} IMAGE" * (int(said[2]) > 1)
    assert out.with_suffix(".log").read_text().splitlines() == [
        f"igcv: {number.name}: saved after {said[0]}. Resume with: igcv train --resume --out {out}{best}"
    ]
    state = decode(out / STATE)
    assert (state.progress[0].steps, state.epoch + 1) == (int(said[1]), int(said[2]))


def test_the_exit_status_is_the_signals(photos: Path, tmp_path: Path) -> None:
    """The exit status of `igcv train` is 128 + 15 after SIGTERM."""
    arguments = ["train", *STEPWISE, "epochs=1000", f"data={photos}", "--out", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "igcv", *arguments, "--quiet"], env=ONE_THREAD)
    wait_for(tmp_path / "run" / STATE)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 128 + signal.SIGTERM


def test_a_second_interrupt_ends_at_once() -> None:
    """A second Ctrl-C ends the process; the copy of the first that torchrun passes on does not."""
    lines = (
        "import os, signal, time",
        "from igcv.training.checkpoint import Watch",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",  # background processes ignore SIGINT
        "with Watch(float('inf')) as watch:",
        "    os.kill(os.getpid(), signal.SIGINT); os.kill(os.getpid(), signal.SIGINT)",
        "    print(watch.wish().signal, flush=True)",
        "    time.sleep(1.1)",
        "    os.kill(os.getpid(), signal.SIGINT)",
        "    print('still here')",
    )
    done = subprocess.run([sys.executable, "-c", "\n".join(lines)], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (-signal.SIGINT, f"{signal.SIGINT}\n")


def test_time_to_save() -> None:
    assert Watch(float("inf")).wish() == Wish()
    watch = Watch(0.05)
    assert watch.wish() == Wish()
    time.sleep(0.06)
    assert watch.wish() == Wish(save=1)
    watch.saved()
    assert watch.wish() == Wish()


def test_other_handlers_come_back() -> None:
    before = signal.getsignal(signal.SIGTERM)
    with Watch(1.0):
        assert signal.getsignal(signal.SIGTERM) != before
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_damaged_checkpoint_is_passed_over(photos: Path, alone: Path, tmp_path: Path) -> None:
    """After every kind of damage, the run resumes from the previous checkpoint and ends like an uninterrupted run."""
    out, expected = tmp_path / "run", settle(alone)
    with running(photos, out) as pid:
        wait_for(out / PREVIOUS)
        os.kill(pid, signal.SIGKILL)
    kinds = {}
    for seed in range(20):
        copy = Path(shutil.copytree(out, tmp_path / str(seed)))
        kinds[damage(copy / STATE, random.Random(seed))] = copy
    assert len(kinds) == 5
    for kind, copy in kinds.items():
        status, said = run_once(SETTINGS, photos, copy)
        assert status == 0, said
        assert "resuming from the previous checkpoint: " in said
        assert same(settle(copy), expected), kind


def test_two_damaged_checkpoints(photos: Path, alone: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(alone, tmp_path / "run"))
    for name in (STATE, PREVIOUS):
        (out / name).write_bytes((out / name).read_bytes()[:-1])
    status, said = run_once([*SETTINGS, "epochs=4"], photos, out)
    assert status == 2
    assert "It may be truncated" in said


def test_a_full_disk(photos: Path, alone: Path, tmp_path: Path) -> None:
    """The run stops with a plain error, and resumes to the same outcome after the disk is enlarged."""
    try:
        assert full_disks(photos, tmp_path, settle(alone), [3000, 6000]) == 2
    except OSError as error:
        pytest.skip(f"needs to mount a small file system: {error}")


def test_a_folder_belongs_to_one_run(photos: Path, tmp_path: Path) -> None:
    """A second run is refused while the first is alive; after a kill, the folder is free."""
    out = tmp_path / "run"
    with running(photos, out, "epochs=1000") as pid:
        with pytest.raises(
            igcv.InputError, match=rf"process {pid} on .* is writing to '.*run'. Wait until it ends"
        ):
            Run(out, resume=True)
        Run(out, resume=True, write=False)
        os.kill(pid, signal.SIGKILL)
    Run(out, resume=True)


def test_readers_see_a_whole_run_at_any_moment(photos: Path, tmp_path: Path) -> None:
    """Weights, card, log and state are read repeatedly while the run writes them."""
    out, epochs = tmp_path / "run", set()
    with running(photos, out, "epochs=6") as pid:
        while Path(f"/proc/{pid}").exists() and not (out / "summary.json").exists():
            rows = read_metrics(out)
            assert [row["epoch"] for row in rows] == list(range(1, len(rows) + 1))
            assert decode(out / STATE).epoch <= len(read_metrics(out))
            if (out / "best.safetensors").exists():
                classifier = igcv.load(out)
                epochs.add(classifier.card.results["epoch"])
                assert all(torch.isfinite(tensor).all() for tensor in classifier.model.state_dict().values())
    assert epochs


def test_killed_before_the_summary(photos: Path, alone: Path, tmp_path: Path) -> None:
    """A run killed after its last epoch writes the summary and report on resuming, and trains no further epoch."""
    out = Path(shutil.copytree(alone, tmp_path / "run"))
    before = json.loads((out / "summary.json").read_text())
    for name in ("summary.json", "report.html"):
        (out / name).unlink()
    status, said = run_once(SETTINGS, photos, out)
    assert status == 0, said
    after = json.loads((out / "summary.json").read_text())
    assert after == before
    assert (out / "report.html").is_file()


def test_torchrun_starts_again(photos: Path, tmp_path: Path) -> None:
    """With --max-restarts, a run resumes after the kill of one of two processes, to the same outcome."""
    whole, out = tmp_path / "whole", tmp_path / "killed"
    assert live(SETTINGS, photos, whole, 2, random.Random(0)).codes == [0, 0]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    command += ["--max-restarts=2", "-m", "igcv", "train", *STEPWISE, f"data={photos}"]
    command += ["--out", str(out), "--device", "cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(command, env=ONE_THREAD, **pipes)
    wait_for(out / STATE)
    os.kill(int((out / ".lock").read_text().split()[1]), signal.SIGKILL)
    said, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 0, errors
    assert "resuming after step" in said
    assert same(settle(out), settle(whole))


def test_torchrun_does_not_go_on_with_a_run_that_it_did_not_start(
    alone: Path, photos: Path, tmp_path: Path
) -> None:
    """The folder holds a run, so both the first start and the restart fail, and the run stays unchanged."""
    out = Path(shutil.copytree(alone, tmp_path / "run"))
    before = settle(out)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command += ["--max-restarts=1", "-m", "igcv", "train", *STEPWISE, "epochs=9", f"data={photos}"]
    done = subprocess.run([*command, "--out", str(out)], env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("already holds a run. Add --resume") == 2
    assert same(settle(out), before)
