"""Tests of `igcv check`: problems of a data set, and the expected training."""

import json
import shutil
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageFilter

import igcv
from igcv import InputError
from igcv.data import write_records
from igcv.data.images import ArrayImages
from igcv.data.inspection import equal_images, look_at_all, nearly_equal
from igcv.training.findings import Place, twins
from tests.conftest import Igcv

FEW = {"model": "igcv3_w_010", "input_size": 16, "batch_size": 4, "precision": "float32", "device": "cpu"}
SET = ["model=igcv3_w_010", "input_size=16", "batch_size=4", "precision=float32"]


def scene(seed: int, width: int = 64, height: int = 48) -> Image.Image:
    """Return an image with some structure: blurred noise."""
    noise = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    blurred = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(5))
    pixels = np.asarray(blurred, np.float64)
    return Image.fromarray(((pixels - pixels.min()) * 255 / np.ptp(pixels)).astype(np.uint8))


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with train/ and val/ and two classes, without problems."""
    for part, first, count in (("train", 0, 8), ("val", 100, 6)):
        for number, name in enumerate(("cat", "dog")):
            folder = tmp_path / "photos" / part / name
            folder.mkdir(parents=True)
            for i in range(count):
                scene(first + 50 * number + i).save(folder / f"{i}.png")
    return tmp_path / "photos"


def test_nothing_is_wrong(photos: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    page = tmp_path / "check.html"
    outcome = igcv_command("check", f"folder:{photos}", *SET, "--device", "cpu", "--out", page)
    assert outcome.status == 0, outcome.err
    assert "nothing to fix" in outcome.out and "shorter side: 48 to 48 pixels" in outcome.out
    assert "expected time:" in outcome.out and "batch_size" not in outcome.out  # the user gave batch_size
    text = page.read_text()
    assert text.count("<img") == 16 and "Nothing to fix" in text


def test_all_that_is_wrong_is_named(photos: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    shutil.copy(photos / "train" / "cat" / "0.png", photos / "val" / "cat" / "copy.png")
    shutil.copy(photos / "train" / "cat" / "1.png", photos / "train" / "dog" / "copy.png")
    scene(2).resize((200, 150)).save(photos / "val" / "cat" / "larger.jpg", quality=60)
    (photos / "train" / "dog" / "broken.jpg").write_text("no image")
    scene(900).convert("L").save(photos / "train" / "dog" / "gray.png")
    page = tmp_path / "check.html"
    outcome = igcv_command("check", f"folder:{photos}", *SET, "--device", "cpu", "--out", page)
    assert outcome.status == 1
    for text in (
        "fix: 1 unreadable image: train/dog/broken.jpg",
        "fix: 1 pair of equal images in two parts",
        "train/cat/0.png (train) = val/cat/copy.png (val)",
        "fix: 1 pair of nearly equal images in two parts",
        "train/cat/2.png (train) = val/cat/larger.jpg (val)",
        "fix: 1 pair of equal images in two classes",
        "train/cat/1.png (train) = train/dog/copy.png (train)",
        "color modes: RGB 31, L 1",
    ):
        assert text in outcome.out, (text, outcome.out)
    text = page.read_text()
    assert "broken.jpg" in text and text.count("<figure>") == 4 and "To fix" in text


def test_the_same_from_python(photos: Path, igcv_command: Igcv) -> None:
    found = igcv.check(f"folder:{photos}", **FEW)
    assert found.classes == {"cat": {"train": 8, "val": 6}, "dog": {"train": 8, "val": 6}}
    assert not found.problems and found.training_s and found.epoch_s
    assert found.choices["drop_last"].value is False
    as_json = json.loads(igcv_command("check", f"folder:{photos}", *SET, "--device", "cpu", "--json").out)
    assert as_json["classes"] == found.classes and as_json["choices"]["drop_last"] is False


def test_small_and_unequal_classes(photos: Path) -> None:
    for i in range(1, 8):
        (photos / "train" / "dog" / f"{i}.png").unlink()
    for i in range(2, 6):
        (photos / "val" / "dog" / f"{i}.png").unlink()
    for i in range(20, 24):
        scene(i).save(photos / "train" / "cat" / f"{i}.png")
    found = igcv.check(f"folder:{photos}", **FEW)
    assert any(
        "1 class with fewer than 5 validation images" in note and "dog" in note for note in found.notes
    )
    assert any("12 times as many training images" in note for note in found.notes)


def test_a_class_of_one_image(tmp_path: Path) -> None:
    for name, count in (("cat", 6), ("dog", 1)):
        (tmp_path / name).mkdir()
        for i in range(count):
            scene(10 * count + i).save(tmp_path / name / f"{i}.png")
    found = igcv.check(f"folder:{tmp_path}", **FEW)
    assert any("1 class without validation images: dog" in line for line in found.problems)


def test_nothing_can_be_read(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i in range(3):
            (tmp_path / name / f"{i}.png").write_text("no image")
    found = igcv.check(f"folder:{tmp_path}", **FEW)
    assert len(found.unreadable) == 6 and found.training_s is None
    assert any("6 unreadable images" in line for line in found.problems)


def test_what_counts_as_nearly_equal() -> None:
    """Images with changed contrast or one more color are nearly equal; other images and plain areas are not."""
    first = scene(1)
    bright = Image.fromarray((np.asarray(first) * 0.6 + 80).astype(np.uint8))
    blue = Image.fromarray(np.asarray(first) // np.array([1, 1, 2], np.uint8))
    plain = [Image.new("RGB", (64, 48), color) for color in ("black", "white", "red")]
    pixels = np.stack([np.asarray(image) for image in (first, bright, blue, scene(2), *plain)])
    looks = look_at_all(ArrayImages(pixels, np.zeros(len(pixels)), "test"), threads=2)
    assert nearly_equal(looks, [0], range(1, 7)) == [(0, 1), (0, 2)]
    assert {i for pair in nearly_equal(looks, range(7), range(7)) for i in pair} == {0, 1, 2}
    assert equal_images(looks) == [] and equal_images([*looks, looks[3]]) == [[3, 7]]


def test_records_have_names_of_their_own(tmp_path: Path) -> None:
    """Record numbers repeat in two files; a damaged record counts as an unreadable image."""
    for part, first in (("train", 0), ("val", 50)):
        encoded = []
        for i in range(6):
            file = BytesIO()
            scene(first + i).save(file, "PNG")
            encoded.append((i % 2, file.getvalue()))
        encoded[3] = (1, b"no image")
        write_records(tmp_path / f"{part}.rec", encoded)
    found = igcv.check(f"rec:{tmp_path / 'train.rec'},{tmp_path / 'val.rec'}", **FEW)
    assert list(found.unreadable) == ["train 3", "val 3"]


def test_pairs_by_hand() -> None:
    places = [Place("train", 0), Place("train", 1), Place("val", 0), Place("val", 1)]
    across, conflicts = twins([[0, 2], [1, 2, 3]], places)
    assert across == [(0, 2), (1, 2), (1, 3)] and conflicts == [(1, 2)]


@pytest.mark.parametrize(
    ("data", "message"),
    [("folder:nowhere", "cannot be read as a folder"), ("nothing", "unknown data source")],
)
def test_wrong_input(data: str, message: str, igcv_command: Igcv) -> None:
    outcome = igcv_command("check", data)
    assert outcome.status == 2 and message in outcome.err


def test_without_the_extra(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, a note replaces the search for nearly equal images, and the page raises an error."""
    missing: Any = lambda *packages: not {"imagehash", "jinja2"} & set(packages)  # noqa: E731
    for place in ("igcv.extras", "igcv.data.inspection", "igcv.training.findings"):
        monkeypatch.setattr(f"{place}.installed", missing)
    found = igcv.check(f"folder:{photos}", **FEW)
    assert any("pip install 'igcv[report]'" in note for note in found.notes)
    with pytest.raises(InputError, match="needs the package jinja2"):
        igcv.check(f"folder:{photos}", out=tmp_path / "check.html", **FEW)
