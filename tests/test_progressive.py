"""Tests of progressive resizing: image sizes, and bitwise identical --resume in every part."""

import io
import json
import signal
import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch
from rich.console import Console

import igcv
from igcv.errors import InputError, Interrupted
from igcv.evaluation.accuracy import Evaluation, accuracy_of
from igcv.machine.processes import Process
from igcv.models import Network
from igcv.report.run import RunReport
from igcv.training import load_recipe, read_metrics
from igcv.training.budget import time_left_s
from igcv.training.epochs import _train
from igcv.training.job import resolve
from igcv.training.loop import Wish
from igcv.training.parts import Parts, make_loaders
from igcv.training.phases import train_in
from igcv.training.reporter import Live, reporter
from igcv.training.state import EpochProgress, decode
from igcv.weights import load_weights, read_tensors
from studies.soak.lives import LIMIT_S, ended, start
from tests.conftest import Igcv

CPU = Process(torch.device("cpu"))
SIZES = ("input_size=16", "progressive_sizes=8,12", "progressive_epochs=1,1", "epochs=3")
SMALL = [
    *SIZES,
    "model=igcv3_w_010",
    "batch_size=8",
    "lr=0.05",
    "workers=0",
    "random_erasing=0.3",
    "precision=float32",
]
PLACES = {
    "resident": ("augment=flip_crop", "resident=on"),
    "decoded": ("augment=inception", "ema_decay=0.9", "mixup=0.2", "accumulation=2"),
    "measured": ("augment=shift", "form=measure"),
}


def run(data: object, out: Path, *settings: str, resume: bool = False) -> dict:
    recipe = load_recipe(None, [*SMALL, f"data={data}", *settings])
    return train_in(CPU, recipe, out, resume=resume, quiet=True)


def stop_after(steps: int, data: object, out: Path, *settings: str) -> None:
    """Run, and receive a signal after `steps` steps."""
    wishes = [Wish()] * (steps - 1) + [Wish(signal=signal.SIGTERM)]
    with mock.patch("igcv.training.checkpoint.Watch.wish", side_effect=wishes), suppress(Interrupted):
        run(data, out, *settings)
        raise AssertionError("the run was not interrupted")


def same_end(first: Path, second: Path) -> bool:
    """Return whether two runs have bitwise identical weights and states, and equal losses and accuracies."""
    for name in ("last", "best", "state"):
        ours, theirs = (read_tensors(folder / f"{name}.safetensors")[0] for folder in (first, second))
        if ours.keys() != theirs.keys() or not all(torch.equal(ours[key], theirs[key]) for key in ours):
            return False
    keys = ("epoch", "train_loss", "val_loss", "val_top1", "lr", "input_size")
    rows = [[[row[key] for key in keys] for row in read_metrics(folder)] for folder in (first, second)]
    return rows[0] == rows[1]


@pytest.fixture
def forms_that_depend_on_the_size(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make the measurement find another form for each size; return the list of measured sizes."""
    sizes: list[int] = []

    def measure(job: object, network: torch.nn.Module, size: int) -> dict[str, str]:
        sizes.append(size)
        names = igcv.models.blocks_with_forms(network)
        return dict.fromkeys(names, {8: "literal", 12: "branches", 16: "literal"}[size])

    monkeypatch.setattr("igcv.training.choose_forms.measured_forms", measure)
    return sizes


@pytest.mark.parametrize("settings", PLACES.values(), ids=PLACES)
def test_a_run_resumed_in_any_part_is_an_uninterrupted_one(
    settings: tuple[str, ...], digit_folder: Path, tmp_path: Path, forms_that_depend_on_the_size: list[int]
) -> None:
    """Stop a run in each part and at its end; 24 images give three steps of eight, or one of two micro-batches."""
    run(digit_folder, tmp_path / "whole", *settings)
    for steps in (1,) if "accumulation=2" in settings else (1, 4, 8):
        out = tmp_path / f"step{steps}"
        stop_after(steps, digit_folder, out, *settings)
        run(digit_folder, out, *settings, resume=True)
        assert same_end(out, tmp_path / "whole"), steps
    for epoch in (1, 2):
        out = tmp_path / f"epoch{epoch}"
        with mock.patch("igcv.training.epochs._train", side_effect=Stop(epoch)), suppress(StoppedError):
            run(digit_folder, out, *settings)
        assert (decode(out / "state.safetensors").epoch, len(read_metrics(out))) == (epoch, epoch)
        run(digit_folder, out, *settings, resume=True)
        assert same_end(out, tmp_path / "whole"), epoch
    if "form=measure" in settings:  # every run measures once, at its start
        assert forms_that_depend_on_the_size == [8, 12, 16] * 6


class StoppedError(Exception):
    """Stands for a killed process."""


class Stop:
    """Train some epochs and be killed in the next epoch."""

    def __init__(self, epochs: int) -> None:
        self.left = epochs

    def __call__(self, *arguments: Any) -> EpochProgress:
        if not self.left:
            raise StoppedError
        self.left -= 1
        return _train(*arguments)


@pytest.mark.parametrize("settings", PLACES.values(), ids=PLACES)
def test_the_network_sees_the_sizes(
    settings: tuple[str, ...], digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training and validation use the size of each part; the strides stay those of the full size."""
    seen: list[tuple[bool, int]] = []
    forward = Network.forward

    def watching(network: Network, x: torch.Tensor) -> torch.Tensor:
        assert network.strides == (1, 1, 1, 2, 2, 1, 1, 1)
        seen.append((network.training, x.shape[-1]))
        return forward(network, x)

    monkeypatch.setattr(Network, "forward", watching)
    monkeypatch.setattr("igcv.training.choose_forms.measured_forms", lambda *given: {"": "literal"})
    run(digit_folder, tmp_path / "run", *settings)
    sizes = list(dict.fromkeys(seen))
    assert sizes == [(True, 8), (False, 8), (True, 12), (False, 12), (True, 16), (False, 16)]
    assert [row["input_size"] for row in read_metrics(tmp_path / "run")] == [8, 12, 16]


def test_what_a_run_says_in_the_middle(digit_folder: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    """The card has the size of the evaluated images, so igcv evaluate gives the same accuracy."""
    out = tmp_path / "run"
    stop_after(4, digit_folder, out, "augment=shift")  # in the second part
    _, card = load_weights(out / "best.safetensors")
    assert (card.input_size, card.preprocessing["input_size"]) == (8, 8)
    assert card.strides == (1, 1, 1, 2, 2, 1, 1, 1)
    (row,) = read_metrics(out)
    figures = json.loads(igcv_command("evaluate", out, "--json").out)
    assert figures["top1"] == pytest.approx(row["val_top1"], abs=1e-3)
    assert figures["loss"] == pytest.approx(row["val_loss"], abs=1e-4)
    image = next((digit_folder / "val" / "zero").iterdir())
    assert igcv_command("predict", out, image).status == 0
    assert igcv_command("report", out).status == 0


def test_the_best_weights_start_again_with_each_size(digit_folder: Path, tmp_path: Path) -> None:
    """A high accuracy on small images does not prevent weights of later parts from becoming the best."""
    found = iter([100.0, 20.0, 10.0])

    def changed(*arguments: Any) -> Evaluation:
        return replace(accuracy_of(*arguments), top1=next(found))

    with mock.patch("igcv.training.epochs.accuracy_of", changed):
        summary = run(digit_folder, tmp_path / "run")
    _, card = load_weights(tmp_path / "run" / "best.safetensors")
    assert (summary["best_top1"], card.results["top1"], card.input_size) == (10.0, 10.0, 16)
    assert json.loads((tmp_path / "run" / "evaluation.json").read_text())["epoch"] == 3


def test_the_report_takes_the_best_of_the_newest_size() -> None:
    rows = [{"epoch": 1, "val_top1": 90.0, "input_size": 8}, {"epoch": 2, "val_top1": 50.0, "input_size": 16}]
    values = {"name": "", "recipe": {}, "defaults": {}, "stages": [], "evaluation": None, "environment": {}}
    best = RunReport(history=rows, **values).best  # type: ignore[arg-type]
    assert best is not None and best["epoch"] == 2


def test_a_run_that_patience_ends_in_a_smaller_part_has_a_best_epoch(
    digit_folder: Path, tmp_path: Path
) -> None:
    settings = ("progressive_sizes=8", "progressive_epochs=4", "epochs=6", "patience=1", "lr=0")
    summary = run(digit_folder, tmp_path / "run", *settings)
    rows = read_metrics(tmp_path / "run")
    assert {row["input_size"] for row in rows} == {8} and len(rows) < 4
    assert summary["best_top1"] == max(row["val_top1"] for row in rows)


def test_parts_follow_the_epoch(digit_folder: Path) -> None:
    job = resolve(
        load_recipe(None, [*SMALL, f"data={digit_folder}", "progressive_epochs=2,3", "epochs=7"]), CPU
    )
    assert [job.at(epoch).preprocessing.input_size for epoch in range(8)] == [8, 8, 12, 12, 12, 16, 16, 16]
    assert (job.preprocessing.input_size, job.recipe.input_size) == (16, 16)
    parts = Parts(job.at(0), make_loaders(job.at(0)))
    parts.train.bad["a.png"] = "broken"
    assert [parts.go_to(epoch) for epoch in range(7)] == [False, False, True, False, False, True, False]
    assert parts.train.bad == {"a.png": "broken"}
    parts.close()


def test_the_time_left_follows_the_pixels() -> None:
    recipe = load_recipe(None, [*SIZES, "progressive_epochs=2,1", "epochs=5"])
    rows = [{"epoch": epoch, "epoch_time_s": 3.0} for epoch in (1, 2)]
    assert time_left_s(recipe, rows) == pytest.approx(6 / (2 * 64) * (144 + 2 * 256))
    plain = load_recipe(None, ["epochs=5", "input_size=16"])
    assert time_left_s(plain, rows) == pytest.approx(9)


def test_the_bar_follows_the_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """Resume three epochs of three steps on images of 8, 12 and 16 pixels after four steps."""
    console = Console(file=io.StringIO(), force_terminal=True)
    monkeypatch.setattr("igcv.training.reporter.PlainConsole", lambda **settings: console)
    with reporter([64, 144, 256], 3, 4, quiet=False) as report:
        assert isinstance(report, Live)
        (task,) = report.progress.tasks
        assert (task.completed, task.total) == (3 * 64 + 144, 3 * (64 + 144 + 256))
        report.step(2, 0.5, 100.0, 0.1)
        report.step(2, 0.5, 100.0, 0.1)
        assert task.completed == 3 * (64 + 144)
        report.step(3, 0.5, 100.0, 0.1)
        assert (task.completed, task.fields["done"], task.fields["steps"]) == (3 * (64 + 144) + 256, 7, 9)


@pytest.mark.parametrize(
    "settings, message",
    [
        (
            ["progressive_sizes=8"],
            r"progressive_sizes and progressive_epochs: got 1 numbers \(8\) and 2 \(1,1\), expected equal",
        ),
        (
            ["progressive_epochs=1,2"],
            "progressive_epochs: got 1,2 with epochs = 3, expected a sum of at most 2",
        ),
        (["progressive_epochs=0,1"], "progressive_epochs: got 0,1, expected integers >= 1"),
        (["progressive_sizes=8,24"], "progressive_sizes: got 8,24, expected at most input_size = 16"),
        (
            ["progressive_sizes=2,8"],
            "progressive_sizes: got 2, expected at least 4, the product of the strides 1,1,1",
        ),
        (["progressive_sizes=8,1.5"], "progressive_sizes: got 1.5 in the list, expected integers"),
        (["input_size=0", "progressive_sizes=8,20"], "got 8,20, expected at most input_size = 16"),
    ],
)
def test_parts_that_do_not_fit(settings: list[str], message: str, digit_folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        resolve(load_recipe(None, [*SMALL, f"data={digit_folder}", *settings]), CPU)


def test_parts_stay_in_a_resumed_run(digit_folder: Path, tmp_path: Path) -> None:
    stop_after(1, digit_folder, tmp_path / "run")
    with pytest.raises(
        InputError, match=r"progressive_epochs: got \(1, 2\), expected \(1, 1\) as in the run"
    ):
        run(digit_folder, tmp_path / "run", "epochs=4", "progressive_epochs=1,2", resume=True)


def test_the_terminal_shows_the_sizes(digit_folder: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    settings = [*SMALL, "resident=on", f"data={digit_folder}", "--out", tmp_path / "run", "--device", "cpu"]
    said = igcv_command("train", *settings).out
    assert "16 x 16 pixels (8 in epoch 1, 12 in epoch 2), strides 1,1,1,2,2,1,1,1" in said
    assert "images: decoded once for each size, then cached in memory" in said
    assert "image size 12 x 12 pixels from epoch 2" in said
    for epoch, size in enumerate((8, 12, 16), 1):
        assert f"epoch {epoch}/3  {size} px  loss" in said


def test_two_processes(digit_folder: Path, tmp_path: Path) -> None:
    """A run of two processes, killed in the second part and resumed, ends like an uninterrupted run."""
    settings = [*SMALL, "augment=shift", "workers=1", f"data={digit_folder}", "save_minutes=0"]
    command, log = ["train", *settings, "--device", "cpu", "--quiet", "--out"], tmp_path / "log"
    whole, parts = ([*command, str(tmp_path / name)] for name in ("whole", "parts"))
    assert ended(whole, 2, log) == [0, 0], log.read_text()
    started = start(parts, 2, log)
    wait_until_epoch(1, tmp_path / "parts")
    for process in started:
        process.terminate()
    for process in started:
        process.join(LIMIT_S)
    assert [process.exitcode for process in started] == [128 + signal.SIGTERM] * 2
    assert ended([*parts, "--resume"], 2, log) == [0, 0], log.read_text()
    assert same_end(tmp_path / "whole", tmp_path / "parts")
    assert [row["input_size"] for row in read_metrics(tmp_path / "parts")] == [8, 12, 16]


def wait_until_epoch(epochs: int, out: Path) -> None:
    """Wait until a run has finished a number of epochs."""
    deadline = time.monotonic() + 120
    while not (out / "state.safetensors").is_file() or decode(out / "state.safetensors").epoch < epochs:
        assert time.monotonic() < deadline
        time.sleep(0.01)
