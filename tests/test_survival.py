"""What a run survives: kills, signals, a full disk, damaged checkpoints, a second run in its folder.

Real processes, forked from a server; `make soak` does the same at length (see docs/reliability.md).
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
    """48 training images: four steps in an epoch."""
    return write_digits(tmp_path_factory.mktemp("photos"), train=24)


@pytest.fixture(scope="module")
def alone(photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that nothing happened to."""
    out = tmp_path_factory.mktemp("alone") / "run"
    assert live(SETTINGS, photos, out, 1, random.Random(0)).codes == [0]
    return out


@contextmanager
def running(data: Path, out: Path, *settings: str) -> Iterator[int]:
    """A run in another process, with its first checkpoint written; its process number."""
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
        assert time.monotonic() < deadline, f"{path} does not come"
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
    best = f" or use the best epoch so far: igcv predict {out} IMAGE" * (int(said[2]) > 1)
    assert out.with_suffix(".log").read_text().splitlines() == [
        f"igcv: {number.name}: saved after {said[0]}; resume it with: igcv train --resume --out {out}{best}"
    ]
    state = decode(out / STATE)
    assert (state.progress[0].steps, state.epoch + 1) == (int(said[1]), int(said[2]))


def test_the_exit_status_is_the_signals(photos: Path, tmp_path: Path) -> None:
    """A whole `igcv train` of its own, whose shell sees 128 + 15."""
    arguments = ["train", *STEPWISE, "epochs=1000", f"data={photos}", "--out", str(tmp_path / "run")]
    process = subprocess.Popen([sys.executable, "-m", "igcv", *arguments, "--quiet"], env=ONE_THREAD)
    wait_for(tmp_path / "run" / STATE)
    process.send_signal(signal.SIGTERM)
    assert process.wait(LIMIT_S) == 128 + signal.SIGTERM


def test_a_second_interrupt_ends_at_once() -> None:
    """The second Ctrl-C of a person; not the copy of the first that torchrun passes on."""
    lines = (
        "import os, signal, time",
        "from igcv.training.checkpoint import Watch",
        "signal.signal(signal.SIGINT, signal.default_int_handler)",  # not as in the background
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
    """Every kind of damage to the newest one: the run goes on from the one before and ends as if nothing had been."""
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
        assert "resuming from the checkpoint before the newest: " in said
        assert same(settle(copy), expected), kind


def test_two_damaged_checkpoints(photos: Path, alone: Path, tmp_path: Path) -> None:
    out = Path(shutil.copytree(alone, tmp_path / "run"))
    for name in (STATE, PREVIOUS):
        (out / name).write_bytes((out / name).read_bytes()[:-1])
    status, said = run_once([*SETTINGS, "epochs=4"], photos, out)
    assert status == 2
    assert "it may be cut short" in said


def test_a_full_disk(photos: Path, alone: Path, tmp_path: Path) -> None:
    """The run stops with a plain error, and goes on to the same end once there is space."""
    try:
        assert full_disks(photos, tmp_path, settle(alone), [3000, 6000]) == 2
    except OSError as error:
        pytest.skip(f"needs to mount a small file system: {error}")


def test_a_folder_belongs_to_one_run(photos: Path, tmp_path: Path) -> None:
    """While one writes, a second is refused; once it is killed, the folder is free."""
    out = tmp_path / "run"
    with running(photos, out, "epochs=1000") as pid:
        with pytest.raises(igcv.InputError, match=rf"process {pid} on .* is writing into .*run; wait for it"):
            Run(out, resume=True)
        Run(out, resume=True, write=False)
        os.kill(pid, signal.SIGKILL)
    Run(out, resume=True)


def test_readers_see_a_whole_run_at_any_moment(photos: Path, tmp_path: Path) -> None:
    """Weights, card, log and state are read over and over while they are written."""
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
    """All epochs are there, but the run was killed before it wrote its figures: these come, and no epoch more."""
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
    """One of two processes is killed: with --max-restarts the same command goes on by itself, to the same end."""
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
    """Its first start is refused, as the folder holds a run; so is the second, and the run stays as it was."""
    out = Path(shutil.copytree(alone, tmp_path / "run"))
    before = settle(out)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=1"]
    command += ["--max-restarts=1", "-m", "igcv", "train", *STEPWISE, "epochs=9", f"data={photos}"]
    done = subprocess.run([*command, "--out", str(out)], env=ONE_THREAD, capture_output=True, text=True)
    assert done.returncode != 0
    assert done.stderr.count("already holds a run; add --resume") == 2
    assert same(settle(out), before)
