"""Unreadable and unusual images: readable ones are read, others are skipped, counted and listed, up to a limit."""

import json
import os
import shutil
from io import BytesIO
from pathlib import Path

import pytest
import torch
from PIL import Image

import igcv
from igcv.data import Finish, LoaderSettings, make_loader
from igcv.data.loaders import accepted_bad
from igcv.data.preprocessing import IMAGENET, plain_transform
from igcv.data.sources.open import open_source
from igcv.machine.processes import Process
from igcv.training import load_recipe, read_metrics
from igcv.training.phases import train_in
from tests.conftest import Igcv

CPU = Process(torch.device("cpu"))


def image(kind: str, mode: str = "RGB", **options: object) -> bytes:
    """Write an image file with two color areas."""
    picture = Image.new("RGB", (16, 16), (200, 60, 30))
    picture.paste((20, 90, 220), (0, 0, 8, 16))
    file = BytesIO()
    picture.convert(mode).save(file, kind, **options)
    return file.getvalue()


def bomb() -> bytes:
    """Return a PNG of a few bytes whose header gives 900 million pixels."""
    png = bytearray(image("PNG"))
    at = png.index(b"IHDR") + 4
    png[at : at + 8] = (30_000).to_bytes(4, "big") * 2
    return bytes(png)


GOOD = {
    "named_wrongly.jpg": image("PNG"),
    "cmyk.jpg": image("JPEG", "CMYK"),
    "palette.png": image("PNG", "P"),
    "transparent.png": image("PNG", "RGBA"),
    "animated.webp": image("WEBP", save_all=True, append_images=[Image.new("RGB", (16, 16))]),
    "pages.tiff": image("TIFF", save_all=True, append_images=[Image.new("RGB", (16, 16))]),
    "UPPER.PNG": image("PNG"),
    "phone.jfif": image("JPEG"),
    "old.gif": image("GIF", "P"),
}
BAD = {
    "empty.png": b"",
    "text.jpg": b"not an image at all",
    "cut_short.jpg": image("JPEG")[:300],
    "cut_short.png": image("PNG")[:60],
    "deep.tiff": None,  # floating-point pixels
    "bomb.png": bomb(),
    "pipe.jpg": None,
    "loop.png": None,  # a link to itself
    "gone.png": None,  # a broken link
}


@pytest.fixture
def photos(digit_folder: Path, tmp_path: Path) -> Path:
    """Write the digits, with good and bad files of every kind among the training images of one class."""
    root = Path(shutil.copytree(digit_folder, tmp_path / "photos"))
    folder = root / "train" / "one"
    for name, content in (GOOD | BAD).items():
        if content is not None:
            (folder / name).write_bytes(content)
    Image.new("F", (16, 16), 0.5).save(folder / "deep.tiff")
    os.mkfifo(folder / "pipe.jpg")
    (folder / "loop.png").symlink_to("loop.png")
    (folder / "gone.png").symlink_to("nowhere.png")
    return root


def run(data: Path, out: Path, *settings: str) -> dict:
    small = ["model=igcv3_w_010", "input_size=16", "batch_size=8", "epochs=1", "workers=0", "resident=off"]
    return train_in(CPU, load_recipe(None, [*small, *settings, f"data={data}"]), out, quiet=True)


@pytest.mark.parametrize("resident", ["on", "off"])
def test_bad_images_are_passed_over_counted_and_listed(resident: str, photos: Path, tmp_path: Path) -> None:
    settings = [f"resident={resident}", "augment=shift", "epochs=3", f"max_bad_images={len(BAD)}"]
    summary = run(photos, tmp_path / "out", *settings)
    rows = [json.loads(line) for line in (tmp_path / "out" / "bad_images.jsonl").read_text().splitlines()]
    assert {Path(row["image"]).name for row in rows} == set(BAD)
    assert all(row["image"] in row["reason"] for row in rows)
    assert read_metrics(tmp_path / "out")[-1]["bad_images"] == summary["bad_images"] == len(BAD)


def test_every_good_image_is_used(photos: Path) -> None:
    """Each file is read with its colors: red on the right, blue on the left."""
    images = open_source(str(photos)).train
    assert images is not None
    for i, path in enumerate(images.files):
        if Path(path).name in GOOD:
            pixels = images[i][0]
            left, right = pixels.getpixel((2, 8)), pixels.getpixel((13, 8))
            assert pixels.mode == "RGB"
            assert left[2] > 150 > left[0] and right[0] > 150 > right[2], path


def test_a_limit_of_bad_images(photos: Path, tmp_path: Path) -> None:
    with pytest.raises(
        igcv.InputError,
        match=r"images cannot be read, expected at most 3 \(max_bad_images\). Last error: \S+/one/",
    ):
        run(photos, tmp_path / "out", "max_bad_images=3")
    listed = (tmp_path / "out" / "bad_images.jsonl").read_text().splitlines()
    assert len(listed) >= 4
    assert not (tmp_path / "out" / "state.safetensors").exists()
    run(photos, tmp_path / "out", f"max_bad_images={len(BAD)}")


@pytest.mark.parametrize(("images", "limit"), [(4, 1), (34, 3), (990, 99), (5_000, 100), (50_000, 500)])
def test_the_limit_of_small_and_large_sets(images: int, limit: int) -> None:
    assert accepted_bad(images) == limit


@pytest.mark.parametrize("resident", ["on", "off"])
def test_a_class_of_which_no_image_can_be_read(resident: str, digit_folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(digit_folder, tmp_path / "photos"))
    for part in ("train", "val"):
        shutil.copytree(root / part / "one", root / part / "two")
    for file in (root / "train" / "two").iterdir():
        file.write_bytes(b"")
    with pytest.raises(igcv.InputError, match=r"images cannot be read, expected at most 3"):
        run(root, tmp_path / "limit", f"resident={resident}", "augment=shift")
    message = r"all 12 training images of the class 'two' are unreadable, .*; the first: .*/two/"
    with pytest.raises(igcv.InputError, match=message):
        run(root, tmp_path / "out", f"resident={resident}", "augment=shift", "max_bad_images=20")
    assert len((tmp_path / "out" / "bad_images.jsonl").read_text().splitlines()) == 12


def test_the_summary_counts_unreadable_images(digit_folder: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    root = Path(shutil.copytree(digit_folder, tmp_path / "photos"))
    (root / "train" / "one" / "0.png").write_bytes(b"")
    settings = (
        "model=igcv3_w_010",
        "input_size=16",
        "batch_size=8",
        "epochs=1",
        "workers=0",
        "precision=float32",
    )
    ended = igcv_command("train", "--data", root, "--out", tmp_path / "out", "--device", "cpu", *settings)
    assert ended.status == 0 and "photos, 1 unreadable image skipped (bad_images.jsonl)" in ended.out


def test_files_that_vanish_in_an_epoch(digit_folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(digit_folder, tmp_path / "photos"))
    images = open_source(str(root)).train
    assert images is not None
    transform, finish = plain_transform(IMAGENET), Finish(IMAGENET)
    loader = make_loader(
        images, transform, finish, LoaderSettings(batch_size=4, train=True, skip_bad=True, max_bad=12)
    )
    counts = []
    for step, (_, labels) in enumerate(loader):
        counts.append(len(labels))
        if step == 1:
            shutil.rmtree(root / "train" / "one")
    assert counts == [4] * 6
    assert loader.bad
    assert all("/one/" in name and "No such file" in reason for name, reason in loader.bad.items())


def test_folders_that_link_to_each_other(tmp_path: Path) -> None:
    """Each image counts once, despite a link to the parent folder, a link to itself and a second link to a folder."""
    for name in ("a", "b"):
        folder = tmp_path / "data" / name
        (folder / "more").mkdir(parents=True)
        for i in range(2):
            (folder / f"{i}.png").write_bytes(image("PNG"))
            (folder / "more" / f"{i}.png").write_bytes(image("PNG"))
        (folder / "again").symlink_to("more")
        (folder / "self").symlink_to(".")
        (folder / "more" / "up").symlink_to("..")
    source = open_source(str(tmp_path / "data"))
    assert len(source.train) + len(source.val) == 8


def test_two_classes_of_one_name(tmp_path: Path) -> None:
    """Class names that look alike but differ in their bytes are refused."""
    for name in ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "cafe\N{COMBINING ACUTE ACCENT}"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(image("PNG"))
    with pytest.raises(
        igcv.InputError, match=r"got the class name 'caf.' for the labels 0, 1, expected unique names"
    ):
        open_source(str(tmp_path / "data"))


def test_classes_that_differ_between_the_parts(digit_folder: Path, tmp_path: Path) -> None:
    root = Path(shutil.copytree(digit_folder, tmp_path / "photos"))
    (root / "val" / "one").rename(root / "val" / "won")
    with pytest.raises(igcv.InputError, match="Only in one: 'one', 'won'"):
        open_source(str(root))
