"""Runs and their terminal: the launcher of --gpus, closed terminals, closed pipes and Ctrl-C during startup."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from igcv.errors import InputError
from igcv.training.launch import gpu_list
from igcv.training.run import STATE
from igcv.training.state import decode
from studies.soak.lives import LIMIT_S, SETTINGS
from studies.soak.photos import write_digits
from tests.conftest import ONE_THREAD
from tests.test_survival import STEPWISE, wait_for


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a data set of 48 training images: four steps per epoch."""
    return write_digits(tmp_path_factory.mktemp("photos"), train=24)


@pytest.mark.parametrize(
    "count, message",
    [
        (0, "--gpus: got '1,2', but igcv found no GPU. Omit --gpus to use the CPU"),
        (
            1,
            "--gpus: got '1,2', expected numbers from 0 to 0: this machine has 1 GPU. Give --gpus with such numbers",
        ),
        (
            2,
            "--gpus: got '1,2', expected numbers from 0 to 1: this machine has 2 GPUs. Give --gpus with such numbers",
        ),
    ],
)
def test_gpus_that_do_not_exist(count: int, message: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: count)
    with pytest.raises(InputError) as caught:
        gpu_list("1,2")
    assert str(caught.value) == message


def test_gpus_as_entries_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert gpu_list("2, 0") == ["2", "0"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,5,7")
    assert gpu_list("2, 0") == ["7", "4"]


def test_a_signal_to_the_launcher_reaches_all_processes(photos: Path, tmp_path: Path) -> None:
    """The launcher of --gpus 0,1, on the CPU, passes SIGTERM to torchrun and its processes, which save and end."""
    out = tmp_path / "run"
    arguments = [
        "train",
        *STEPWISE,
        "epochs=1000",
        f"data={photos}",
        "--out",
        str(out),
        "--device",
        "cpu",
    ]
    line = "import sys; from igcv.training.launch import launch; sys.exit(launch(['0', '1'], sys.argv[1:]))"
    process = subprocess.Popen(
        [sys.executable, "-c", line, *arguments], env=ONE_THREAD, stderr=subprocess.PIPE, text=True
    )
    wait_for(out / STATE)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=LIMIT_S)
    assert process.returncode == 128 + signal.SIGTERM
    said = re.search(r"igcv: SIGTERM: saved after step (\d+) of epoch", errors)
    assert said, errors
    assert [part.steps for part in decode(out / STATE).progress] == [int(said[1])] * 2


@pytest.mark.parametrize(
    "program",
    [
        "from igcv.commands.main import main; main()",
        "import sys; from igcv.training.launch import launch; sys.exit(launch(['0', '1'], sys.argv[1:]))",
    ],
    ids=["one process", "a launcher and two"],
)
def test_under_nohup_a_run_outlives_its_terminal(program: str, photos: Path, tmp_path: Path) -> None:
    """After the terminal closes, all processes ignore SIGHUP and their output is discarded."""
    out, (ours, theirs) = tmp_path / "run", os.openpty()
    arguments = ["train", *STEPWISE, f"data={photos}", "--out", str(out), "--device", "cpu"]
    process = subprocess.Popen(
        [sys.executable, "-c", program, *arguments],
        env=ONE_THREAD,
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_IGN),
    )
    os.close(theirs)
    wait_for(out / STATE)
    os.close(ours)
    os.killpg(process.pid, signal.SIGHUP)
    assert process.wait(LIMIT_S) == 0
    assert json.loads((out / "summary.json").read_text())["epochs"] == 3


def test_a_run_outlives_the_reader_of_its_lines(photos: Path, tmp_path: Path) -> None:
    """A closed pipe, as in `igcv train ... | head -1`, does not stop the run."""
    out = tmp_path / "run"
    arguments = ["train", *SETTINGS, f"data={photos}", "--out", str(out), "--device", "cpu"]
    command = [sys.executable, "-m", "igcv", *arguments]
    with subprocess.Popen(command, env=ONE_THREAD, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout and process.stderr
        assert process.stdout.readline()
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(LIMIT_S) == 0
    assert (out / "summary.json").is_file()


def test_ctrl_c_ends_the_launcher_quietly_while_libraries_load(photos: Path, tmp_path: Path) -> None:
    """A terminal sends Ctrl-C to the launcher, torchrun and its processes at once."""
    line = "from igcv.training.launch import launch; print(flush=True); sys.exit(launch(['0', '1'], sys.argv[1:]))"
    arguments = ["train", *SETTINGS, f"data={photos}", "--out", str(tmp_path / "run"), "--device", "cpu"]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    command = [sys.executable, "-c", f"import sys; {line}", *arguments]
    with subprocess.Popen(command, env=ONE_THREAD, start_new_session=True, **pipes) as process:
        process.stdout.readline()
        time.sleep(1)
        os.killpg(process.pid, signal.SIGINT)
        assert process.communicate(timeout=LIMIT_S) == ("", "")
    assert process.returncode == 128 + signal.SIGINT
