"""Tests that run the scripts in examples/ as a user does, on tiny data."""

import ast
import os
import re
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
TIMM = Path(os.environ.get("IGCV_TEST_TIMM", ""))


def run_example(name: str, *arguments: str | Path, **variables: str) -> str:
    """Run a script of examples/ and return what it prints."""
    return run_program([sys.executable, str(ROOT / "examples" / name), *map(str, arguments)], **variables)


def losses(said: str) -> list[float]:
    """Return the losses that a script prints, in order."""
    return [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", said)]


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


def test_detect(place: Path) -> None:
    said = run_example("detect.py", "--network", "igcv3_d_025", "--side", "96", "--steps", "12")
    found = losses(said)
    assert len(found) == 12 and sum(found[-4:]) < sum(found[:4])
    assert 0 <= float(said.split()[-1]) <= 1


@pytest.mark.parametrize("architecture", ["Unet", "DeepLabV3Plus"])
def test_segment(place: Path, architecture: str) -> None:
    pytest.importorskip("segmentation_models_pytorch", reason="needs segmentation-models-pytorch")
    words = ["--architecture", architecture, "--network", "igcv3_d_025", "--side", "64", "--steps", "20"]
    said = run_example("segment.py", *words)
    found = losses(said)
    assert len(found) == 10 and found[-1] < 0.5 * found[0]
    assert float(said.split()[-1]) > 0.2


def test_retrieve(place: Path) -> None:
    query = next((place / "photos" / "one").iterdir())
    said = run_example("retrieve.py", WEIGHTS, query, "photos", "--top", "3").splitlines()
    assert said[0] == f"1.000  photos/one/{query.name}" and len(said) == 3
    scores = [float(line.split()[0]) for line in said]
    assert scores == sorted(scores, reverse=True)


def test_from_datasets(place: Path) -> None:
    pytest.importorskip("datasets", reason="needs datasets of Hugging Face")
    offline = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(place / "home")}
    said = run_example("from_datasets.py", "photos", "0.03", **offline)
    assert re.search(r"runs/hugging_face: \d+\.\d % of the validation images are right", said)
    assert set(igcv.load("runs/hugging_face").class_names) == {"zero", "one"}


def test_with_lightning(place: Path) -> None:
    pytest.importorskip("lightning", reason="needs lightning")
    said = run_example("with_lightning.py", "photos", "2")
    assert 0 < float(said.split()[-1]) < 0.7  # 0.69 is the loss of a guess between two classes


@pytest.mark.skipif(not TIMM.is_absolute(), reason="IGCV_TEST_TIMM is not set to a checkout of timm")
def test_scripts_of_timm(place: Path, digit_folder: Path) -> None:
    network = ["--model", "igcv3_d_025", "--model-kwargs", "input_size=32", "--num-classes", "2"]
    small = [*network, "--img-size", "32", "--workers", "1", "--device", "cpu", "--batch-size", "8"]
    run_example(
        "with_timm.py", TIMM / "train.py", digit_folder, *small, "--epochs", "1", "--experiment", "first"
    )
    weights = place / "output" / "train" / "first" / "model_best.pth.tar"
    said = run_example(
        "with_timm.py", TIMM / "validate.py", digit_folder / "val", *small, "--checkpoint", weights
    )
    assert re.search(r'"top1": \d', said)
    igcv.convert(WEIGHTS, "out")
    folder = [
        "--model",
        "local-dir:out",
        "--pretrained",
        "--num-classes",
        "10",
        "--device",
        "cpu",
        "--workers",
        "1",
    ]
    assert '"param_count": ' in run_example(
        "with_timm.py", TIMM / "validate.py", digit_folder / "val", *folder
    )


@pytest.mark.parametrize("name", ["from_datasets.py", "with_lightning.py", "with_timm.py"])
def test_scripts_for_other_libraries_are_short(name: str) -> None:
    module = ast.parse((ROOT / "examples" / name).read_text())
    assert sum(bool(line) for line in ast.unparse(module.body[1:]).splitlines()) <= 20
