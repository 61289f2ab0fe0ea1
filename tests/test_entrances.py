"""The Python functions: each gives the results of its command and leaves its arguments unchanged."""

import json
import logging
import os
import shutil
import signal
from collections.abc import Callable, Sequence
from contextlib import nullcontext, suppress
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import igcv
from igcv.data import DataSource, open_source
from igcv.deploy import write
from igcv.deploy.int8 import onnx as int8_onnx
from igcv.errors import InputError
from igcv.models import blocks_with_forms
from igcv.training import Recipe, launch, read_metrics
from igcv.training.checkpoint import SIGNALS
from tests.conftest import Igcv

SMALL = {
    "model": "igcv3_w_010",
    "input_size": 16,
    "batch_size": 8,
    "epochs": 1,
    "workers": 0,
    "precision": "float32",
}


@pytest.fixture(scope="module")
def trained(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> igcv.TrainedRun:
    out = tmp_path_factory.mktemp("entrances") / "run"
    return igcv.train(out=out, data=str(digit_folder), device="cpu", quiet=True, **SMALL)


def test_training_as_the_command_does(
    trained: igcv.TrainedRun, digit_folder: Path, tmp_path: Path, igcv_command: Igcv
) -> None:
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    outcome = igcv_command(
        "train", f"data={digit_folder}", *settings, "--device", "cpu", "--out", tmp_path / "run", "--quiet"
    )
    assert outcome.status == 0, outcome.err
    assert trained.summary == json.loads((trained.folder / "summary.json").read_text())
    same = ("epoch", "train_loss", "val_loss", "val_top1")
    rows = [
        [row[key] for key in same] for run in (trained.folder, tmp_path / "run") for row in read_metrics(run)
    ]
    assert rows[0] == rows[1]
    assert trained.classifier.card.class_names == ("one", "zero")


def test_resuming_takes_the_settings_of_the_run(trained: igcv.TrainedRun, tmp_path: Path) -> None:
    run = shutil.copytree(trained.folder, tmp_path / "run")
    longer = igcv.train(out=run, resume=True, epochs=2, device="cpu", quiet=True)
    assert longer.summary["epochs"] == 2 and len(read_metrics(run)) == 2


def test_a_recipe_as_object_file_or_name(digit_folder: Path, tmp_path: Path) -> None:
    recipe = replace(Recipe(), **SMALL)
    run = igcv.train(recipe, tmp_path / "object", data=str(digit_folder), device="cpu", quiet=True)
    assert run.summary["model"] == SMALL["model"]
    with pytest.raises(InputError, match=r"unknown recipe 'digit\.toml'; did you mean 'digits\.toml'"):
        igcv.train("digit.toml")
    with pytest.raises(InputError, match="unknown recipe key 'epoch'; did you mean 'epochs'"):
        igcv.train("digits.toml", epoch=3)
    with pytest.raises(InputError, match="epochs: got '3', expected an integer"):
        igcv.train(recipe, epochs="3")


def test_evaluating_as_the_command_does(trained: igcv.TrainedRun, igcv_command: Igcv) -> None:
    said = json.loads(igcv_command("evaluate", trained.folder, "--device", "cpu", "--json").out)
    found = igcv.evaluate(trained.folder, device="cpu")
    assert {"weights": str(trained.folder), "data": found.data, **found.as_dict()} == said
    assert igcv.evaluate(trained.classifier, found.data, device="cpu", batch_size=3).top1 == found.top1
    assert igcv.evaluate(trained.classifier, open_source(found.data), device="cpu").images == found.images


def test_evaluating_leaves_the_network(trained: igcv.TrainedRun) -> None:
    network = trained.classifier.model
    igcv.set_form(network, "sources")
    before = {name: block.form for name, block in blocks_with_forms(network).items()}
    igcv.evaluate(trained.classifier, device="cpu")
    assert {name: block.form for name, block in blocks_with_forms(network).items()} == before


def test_exporting_as_the_command_does(trained: igcv.TrainedRun, tmp_path: Path, igcv_command: Igcv) -> None:
    said = json.loads(
        igcv_command("export", trained.folder, "--out", tmp_path / "a.onnx", "--form", "dense", "--json").out
    )
    written = igcv.export(trained.classifier, tmp_path / "b.onnx", form="dense")
    assert written.as_dict() | {"file": said["file"]} == said | {
        "error": pytest.approx(said["error"], rel=1e-3)
    }
    assert igcv.load(written.file).card.class_names == ("one", "zero")
    with pytest.raises(InputError, match=r"b\.onnx' is an exported file"):
        igcv.export(written.file, tmp_path / "c.onnx")
    with pytest.raises(InputError, match="the network is an exported file"):
        igcv.export(igcv.load(written.file), tmp_path / "c.onnx")


def test_nothing_of_the_caller_changes_even_where_exporting_fails(
    trained: igcv.TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def state() -> tuple[object, ...]:
        network = trained.classifier.model
        forms = {name: block.form for name, block in blocks_with_forms(network).items()}
        return torch.get_num_threads(), logging.root.level, forms, network.training, os.listdir(tmp_path)

    before = state()
    for module, name in ((write, "compare"), (int8_onnx, "compact"), (write, "prepared")):
        with monkeypatch.context() as patched:
            patched.setattr(module, name, lambda *given: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                igcv.export(trained.classifier, tmp_path / "a.onnx", form="dense", int8=True, threads=1)
        assert state() == before
    for failing in (lambda runs: 1 / 0, run_once):
        monkeypatch.setattr("igcv.deploy.choose.shortest_times", failing)
        with suppress(ZeroDivisionError):
            igcv.fold(trained.classifier.model, "auto", input_size=16, threads=3)
        assert state() == before


def test_evaluating_says_how_far_it_is(trained: igcv.TrainedRun) -> None:
    done: list[tuple[int, int]] = []
    igcv.evaluate(trained.folder, batch_size=4, device="cpu", progress=lambda *counts: done.append(counts))
    assert done == [(4, 10), (8, 10), (10, 10)]


def test_the_lines_of_a_training_of_one_epoch(
    digit_folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The line of an epoch shows the learning rate of its last step."""
    settings = {**SMALL, "warmup_epochs": 0.5, "schedule": "constant", "lr": 0.1, "model": "igcv3_w_010"}
    run = igcv.train(Recipe(data=str(digit_folder), **settings), tmp_path / "run", device="cpu")
    said = capsys.readouterr().out
    assert "for 1 epoch; run folder" in said
    assert "epoch 1/1 " in said and "  lr 0.1  " in said
    assert read_metrics(run.folder)[0]["lr"] == pytest.approx(0.1)
    settings |= {"warmup_epochs": 1.0}
    run = igcv.train(
        Recipe(data=str(digit_folder), **settings), tmp_path / "longer", device="cpu", quiet=True
    )
    assert read_metrics(run.folder)[0]["lr"] == pytest.approx(0.1 * 2 / 3)  # three steps: 0, 1/3, 2/3


class Lost:
    """A process whose `wait` raises."""

    def wait(self) -> int:
        return 1 // 0


def test_the_launcher_puts_signals_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in SIGNALS]
    monkeypatch.setattr(launch.sys, "executable", "/bin/true")
    assert launch.launch(["0"], []) == 0
    monkeypatch.setattr(launch.subprocess, "Popen", lambda *given, **named: nullcontext(Lost()))
    with pytest.raises(ZeroDivisionError):
        launch.launch(["0"], [])
    assert [signal.getsignal(number) for number in SIGNALS] == before


def run_once(runs: Sequence[Callable[[], object]]) -> list[float]:
    """Replace a measurement: run every form once, and make the first form the fastest."""
    return [float(i) for i, run in enumerate(runs) if run() is not None]


@pytest.fixture
def grown(trained: igcv.TrainedRun, tmp_path: Path, digit_folder: Path) -> Path:
    """A run folder; its data set got another class after the training."""
    photos = shutil.copytree(digit_folder, tmp_path / "photos")
    run = igcv.train(out=tmp_path / "run", data=str(photos), device="cpu", quiet=True, **SMALL)
    for part in ("train", "val"):
        shutil.copytree(photos / part / "one", photos / part / "two")
    return run.folder


def test_a_class_that_came_later_is_one_thing_to_export_and_to_the_page(
    grown: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both print that they do without the images of the training run; int8 needs explicit images."""
    monkeypatch.setattr("igcv.web.writer.engine_files", lambda say: [])
    why = "and the network have different classes (only in the data: "
    exported = igcv_command("export", grown, "--out", tmp_path / "a.onnx", "--form", "dense")
    assert exported.status == 0 and why in exported.out and "two photographs" in exported.out
    page = igcv_command("web", grown, "--out", tmp_path / "page")
    assert page.status == 0 and f"no int8: folder:{tmp_path / 'photos'} {why}" in page.out
    int8 = igcv_command("export", grown, "--out", tmp_path / "b.onnx", "--form", "dense", "--int8")
    assert int8.status == 2 and why in int8.err


def test_a_page_from_python(
    trained: igcv.TrainedRun, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igcv.web.writer.engine_files", lambda say: [])
    page = igcv.write_page(trained.classifier, tmp_path / "page")
    assert [network["name"] for network in page.networks] == ["float32", "int8"]
    assert page.networks[1]["agreement_images"] == 10 and not page.no_int8
    with pytest.raises(InputError, match="already contains a page"):
        igcv.write_page(trained.folder, tmp_path / "page")
    (tmp_path / "page" / "stale.txt").touch()
    assert igcv.write_page(trained.folder, tmp_path / "page", force=True).networks == page.networks
    assert not (tmp_path / "page" / "stale.txt").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["page"]


def test_a_page_has_own_photos_on_request(
    trained: igcv.TrainedRun,
    digits_run: Path,
    tmp_path: Path,
    igcv_command: Igcv,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Images of a folder may be private; the digits are public."""
    monkeypatch.setattr("igcv.web.writer.engine_files", lambda say: [])

    def written(run: Path, *options: str) -> tuple[str, int, list]:
        ended = igcv_command("web", run, "--out", tmp_path / "page", "--force", *options)
        assert ended.status == 0, ended.err
        images = sum(path.suffix in (".png", ".jpg") for path in (tmp_path / "page").rglob("*"))
        return ended.out, images, json.loads((tmp_path / "page" / "page.json").read_text())["examples"]

    said, images, listed = written(trained.folder)
    assert (images, listed) == (0, []) and "may be private. --examples adds 8" in said
    said, images, listed = written(trained.folder, "--examples")
    assert (images, len(listed)) == (8, 8) and "8 validation images of" in said
    assert written(digits_run)[1] == 8
    said, images, listed = written(digits_run, "--no-examples")
    assert (images, listed) == (0, []) and "may be private" not in said


def test_only_a_page_is_replaced(trained: igcv.TrainedRun, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").touch()
    with pytest.raises(InputError, match="contains other files than a page"):
        igcv.write_page(trained.folder, tmp_path, force=True)
    assert (tmp_path / "thesis.txt").exists()


@pytest.mark.parametrize("name", ["net.onnx", "net.xml"])
def test_an_exported_file_is_replaced_on_request(trained: igcv.TrainedRun, tmp_path: Path, name: str) -> None:
    igcv.export(trained.folder, tmp_path / name, form="dense")
    files = sorted(tmp_path.iterdir())
    for path in files:
        path.write_bytes(b"something else")
    with pytest.raises(InputError, match="give --force to replace it"):
        igcv.export(trained.folder, tmp_path / name, form="dense")
    igcv.export(trained.folder, tmp_path / name, form="dense", force=True)
    assert sorted(tmp_path.iterdir()) == files
    assert igcv.load(tmp_path / name).card.num_classes == 2


def test_a_report_from_python(trained: igcv.TrainedRun, tmp_path: Path) -> None:
    assert igcv.write_report([trained.folder]) == trained.folder / "report.html"
    assert (
        igcv.write_report([trained.folder], tmp_path / "page.html").read_text().startswith("<!DOCTYPE html>")
    )


def test_converting_both_ways(tmp_path: Path) -> None:
    there = igcv.convert("igcv3_w_025.digits", tmp_path / "net-0000.params")
    back = igcv.convert(
        tmp_path / "net-0000.params", tmp_path / "net.safetensors", input_size=there.card.input_size
    )
    assert back.card.model == there.card.model == "igcv3_w_025"
    tensors, others = there.model.state_dict(), igcv.load(tmp_path / "net.safetensors").model.state_dict()
    for name in tensors:
        if not name.endswith("num_batches_tracked"):
            assert torch.equal(tensors[name], others[name]), name
    with pytest.raises(InputError, match="already exists"):
        igcv.convert("igcv3_w_025.digits", tmp_path / "net-0000.params")


def test_data_can_be_opened_before(trained: igcv.TrainedRun) -> None:
    assert isinstance(trained.classifier.open_data(), DataSource)
