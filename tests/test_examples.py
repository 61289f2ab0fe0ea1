"""Tests that run the scripts in examples/ as a user does, on tiny data."""

import shutil
import sys
from pathlib import Path

import pytest
from PIL import Image

import igcv
from igcv.conversion import to_mxnet
from tests.browser import stand_in_engine
from tests.page_commands import ROOT, run_program

WEIGHTS = "igcv3_w_025.digits"


def run_example(name: str, *arguments: str | Path) -> str:
    """Run a script of examples/ and return what it prints."""
    return run_program([sys.executable, str(ROOT / "examples" / name), *map(str, arguments)])


@pytest.fixture
def place(digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with class folders, `photos`, and one image, `photo.jpg`."""
    shutil.copytree(digit_folder / "train", tmp_path / "photos")
    with Image.open(digit_folder / "val" / "one" / "12.png") as image:
        image.save(tmp_path / "photo.jpg")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_train_on_a_folder(place: Path) -> None:
    said = run_example("train_on_a_folder.py", "photos", "photo.jpg", "--minutes", "0.05")
    *_, first, second = said.splitlines()
    assert {line.split()[1] for line in (first, second)} == {"zero", "one"}
    assert igcv.load("runs/photos").predict("photo.jpg")[0][0].name == first.split()[1]
    assert (place / "runs" / "photos" / "report.html").is_file()


def test_fine_tune(place: Path) -> None:
    said = run_example("fine_tune.py", "photos", "--weights", WEIGHTS, "--epochs", "2")
    assert igcv.load("runs/fine_tuned").card.recipe["init_from"] == WEIGHTS
    losses = [float(line.split()[-1]) for line in said.splitlines() if line.startswith("timm: ")]
    assert len(losses) == 2 and losses[1] < losses[0]


def test_convert_mxnet(place: Path) -> None:
    to_mxnet(WEIGHTS, place / "igcv3-0000.params")
    said = run_example("convert_mxnet.py", "igcv3-0000.params")
    assert "converted.safetensors: igcv3_w_025, 10 classes" in said
    assert "back-0000.params: the same bytes as igcv3-0000.params" in said


def test_export_and_run(place: Path) -> None:
    stand_in_engine()
    said = run_example("export_and_run.py", WEIGHTS, "photo.jpg")
    (expected,) = igcv.load(WEIGHTS).predict("photo.jpg", top=1)[0]
    assert f"{expected.probability:7.2%}  {expected.name}" in said
    assert (place / "page" / "index.html").is_file()
