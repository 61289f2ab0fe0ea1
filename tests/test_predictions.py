"""Predictions for folders of images: table, copies, and files that cannot be read or written."""

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
from PIL import Image

import igcv
from igcv.evaluation import sort_into, write_table
from igcv.evaluation.outputs import _FolderNames
from igcv.evaluation.predictions import ImagePrediction, find_images
from igcv.weights import save_weights
from igcv.weights.card import Card
from tests.conftest import Igcv

NAMES = ("one", "zero")


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Save a network with random weights for images of 16 x 16 pixels and two classes."""
    torch.manual_seed(0)
    network = igcv.create_model("igcv3_w_010", 2, input_size=16)
    card = Card(
        model="igcv3_w_010",
        num_classes=2,
        input_size=16,
        strides=network.strides,
        class_names=NAMES,
        preprocessing={
            "mean": [0.5] * 3,
            "std": [0.2] * 3,
            "crop": 1.0,
            "interpolation": "bilinear",
            "input_size": 16,
        },
    )
    file = tmp_path_factory.mktemp("weights") / "network.safetensors"
    save_weights(file, network.state_dict(), card)
    return file


@pytest.fixture
def photos(digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Write ten digits in class folders, one digit of another shape outside, a broken file and hidden files."""
    monkeypatch.chdir(tmp_path)
    root = Path("photos")
    shutil.copytree(digit_folder / "val", root)
    for name in NAMES:
        for i, path in enumerate(sorted((root / name).iterdir())):
            path.rename(path.with_name(f"{i}.png"))
    (root / "zero" / "deeper").mkdir()
    (root / "zero" / "0.png").rename(root / "zero" / "deeper" / "0.png")
    Image.new("RGB", (40, 20), (200, 30, 30)).save(root / "other.JPG")
    (root / "one" / "broken.png").write_bytes(b"no image")
    for hidden in (".hidden.png", ".cache/0.png"):
        (root / hidden).parent.mkdir(exist_ok=True)
        shutil.copy(root / "one" / "1.png", root / hidden)
    (root / "notes.txt").write_text("no image")
    return root


def rows_of(file: Path) -> list[dict[str, str]]:
    with open(file, newline="") as text:
        return list(csv.DictReader(text))


def test_the_table(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    ended = igcv_command("predict", weights, photos, "--out", "p.csv", "--all", "--device", "cpu")
    assert ended.status == 2
    broken, last = ended.err.splitlines()
    assert broken.startswith("photos/one/broken.png: not a readable image")
    assert last == "igcv: 1 of 12 images cannot be read"
    rows = rows_of(Path("p.csv"))
    assert [row["file"] for row in rows] == sorted(
        str(path) for path in photos.rglob("*") if path.suffix in (".png", ".JPG") and "/." not in str(path)
    )
    assert list(rows[0]) == [
        "file",
        "class",
        "probability",
        "true_class",
        "error",
        "probability_one",
        "probability_zero",
    ]
    known = {row["file"]: row["true_class"] for row in rows}
    assert known["photos/other.JPG"] == "" and known["photos/zero/deeper/0.png"] == "zero"
    assert list(known.values()).count("one") == 6
    right = sum(row["class"] == row["true_class"] for row in rows)
    assert ended.out == (
        f"p.csv: 12 images, 1 unreadable\n{right} of 10 images in class folders are classified correctly\n"
    )
    alone = igcv.load(weights)
    for row in rows:
        if row["file"].endswith("broken.png"):
            assert row["error"].startswith("photos/one/broken.png: not a readable image")
            assert {row["class"], row["probability"], row["probability_one"]} == {""}
            continue
        best = alone.predict([row["file"]])[0]
        assert (row["class"], row["error"]) == (best[0].name, "")
        assert float(row["probability"]) == pytest.approx(best[0].probability, abs=1e-5)
        for guess in best:
            assert float(row[f"probability_{guess.name}"]) == pytest.approx(guess.probability, abs=1e-5)


def test_in_python_as_the_command_does(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    done: list[tuple[int, int]] = []
    found = igcv.predict(
        weights, photos, device="cpu", batch_size=5, progress=lambda *counts: done.append(counts)
    )
    assert done == [(5, 12), (10, 12), (12, 12)]
    assert sum(bool(entry.error) for entry in found) == 1
    write_table(found, Path("python.csv"))
    igcv_command("predict", weights, photos, "--out", "command.csv", "--device", "cpu")
    ours, theirs = rows_of(Path("python.csv")), rows_of(Path("command.csv"))
    same = ("file", "class", "true_class")  # the error contains a memory address
    assert [[row[key] for key in same] for row in ours] == [[row[key] for key in same] for row in theirs]
    file = photos / "zero" / "1.png"
    with Image.open(file) as image:
        (memory,), (named,) = (igcv.predict(weights, given, top=1, device="cpu") for given in (image, file))
    assert (memory.file, memory.true_class, named.true_class) == ("", None, "zero")
    assert memory.predictions == named.predictions and len(memory.predictions) == 1


def test_below_the_threshold(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    files = sorted((photos / "zero").glob("*.png"))
    shares = sorted(entry.probability or 0 for entry in igcv.predict(weights, files, device="cpu"))
    middle = (shares[1] + shares[2]) / 2
    igcv_command("predict", weights, *files, "--threshold", middle, "--out", "p.csv", "--device", "cpu")
    rows = rows_of(Path("p.csv"))
    assert [row["class"] == "unknown" for row in rows] == [float(row["probability"]) < middle for row in rows]
    assert sum(row["class"] == "unknown" for row in rows) == 2
    said = igcv_command("predict", weights, *files, "--threshold", 1, "--device", "cpu").out
    assert said.splitlines()[0] == f"{files[0]}: unknown"
    line = igcv_command("predict", weights, files[0], "--threshold", 1, "--json", "--device", "cpu").out
    assert json.loads(line)["unknown"] is True


def test_json_is_one_object_for_each_image(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    ended = igcv_command("predict", weights, photos / "one", "--json", "--top", 1, "--device", "cpu")
    objects = [json.loads(line) for line in ended.out.splitlines()]
    assert ended.status == 2 and len(objects) == 6
    broken = next(entry for entry in objects if entry["image"].endswith("broken.png"))
    assert broken.keys() == {"image", "error"}
    assert all(entry.keys() == {"image", "predictions"} for entry in objects if entry is not broken)
    assert all(len(entry["predictions"]) == 1 for entry in objects if entry is not broken)


def entry(file: Path | str, name: str, error: str = "") -> ImagePrediction:
    return ImagePrediction(str(file), name, None if error else 0.9, None, (), error)


def test_copies_by_prediction(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    """Every readable image is copied once, no image is moved, and equal names get numbers."""
    before = {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}
    ended = igcv_command("predict", weights, photos, "--sort-into", "sorted", "--device", "cpu")
    assert ended.status == 2 and "sorted: 11 images copied (" in ended.out
    copied = [path for path in Path("sorted").glob("*/*") if path.is_file()]
    assert {path.parent.name for path in copied} <= set(NAMES)
    shown = [
        content
        for path, content in before.items()
        if "/." not in str(path) and path.suffix in (".png", ".JPG")
    ]
    assert sorted(path.read_bytes() for path in copied) == sorted(c for c in shown if c != b"no image")
    assert before == {path: path.read_bytes() for path in photos.rglob("*") if path.is_file()}


def test_copies_of_equal_names(photos: Path) -> None:
    files = [photos / "one" / "1.png", photos / "zero" / "1.png", photos / "one" / "2.png"]
    shutil.copy(files[2], photos / "one" / "1-2.png")
    found = [*(entry(file, "a/b") for file in files), entry(photos / "one" / "1-2.png", "a/b")]
    counts = sort_into([*found, entry("x.png", "", "broken"), entry(files[0], "unknown")], Path("sorted"))
    assert counts == {"a_b": 4, "unknown": 1}
    assert sorted(path.name for path in Path("sorted", "a_b").iterdir()) == [
        "1-2-2.png",
        "1-2.png",
        "1.png",
        "2.png",
    ]
    assert Path("sorted", "a_b", "1-2.png").read_bytes() == files[1].read_bytes()


def test_copies_are_replaced_on_request(photos: Path, tmp_path: Path) -> None:
    """An image with a new class is in one folder only, and other files in the folders stay."""
    files, folder = [photos / "one" / "1.png", photos / "one" / "2.png"], tmp_path / "sorted"
    sort_into([entry(file, "one") for file in files], folder)
    (folder / "one" / "note.txt").touch()
    again = [entry(files[0], "two"), entry(files[1], "two")]
    with pytest.raises(
        igcv.InputError, match=r"has copies of an earlier --sort-into.*--force to replace them"
    ):
        sort_into(again, folder)
    assert sort_into(again, folder, force=True) == {"two": 2}
    assert {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()} == {
        *("copied.csv", "one/note.txt", "two/1.png", "two/2.png")
    }
    assert sort_into(again, folder, force=True) == {"two": 2}


def test_a_list_of_copies_names_nothing_outside(photos: Path, tmp_path: Path) -> None:
    (tmp_path / "precious").touch()
    (tmp_path / "sorted").mkdir()
    (tmp_path / "sorted" / "copied.csv").write_text(
        "copy,file\n../precious,x\n/vmlinuz,x\none/../../precious,x\n"
    )
    sort_into([entry(photos / "one" / "1.png", "one")], tmp_path / "sorted", force=True)
    assert (tmp_path / "precious").exists()


def test_folder_names_for_any_class() -> None:
    names = _FolderNames()
    given = ["..", "a/b", "a_b", "A_B", "", "unknown", "../x", "a/b", "x" * 300, "copied.csv"]
    folders = [names.of(name) for name in given]
    assert folders == [
        *("_", "a_b", "a_b-2", "A_B-3", "_-2", "unknown", "_x", "a_b", "x" * 100, "copied.csv-2")
    ]


def test_files_that_are_no_images_for_igcv(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    for name in ("one/a.heic", "zero/b.HEIC", "c.svg", ".hidden.heic"):
        (photos / name).touch()
    ended = igcv_command("predict", weights, photos, photos / "c.svg", "--out", "p.csv", "--device", "cpu")
    assert ended.err.startswith("3 files skipped: 2 .heic, 1 .svg (convert them to JPEG or PNG)\n")
    rows = {row["file"]: row["error"] for row in rows_of(Path("p.csv"))}
    assert "photos/one/a.heic" not in rows
    assert rows["photos/c.svg"].endswith(".svg images are not supported. Convert the image to JPEG or PNG")


def test_the_class_of_a_folder(photos: Path) -> None:
    for given, file, expected in (
        (photos / "one", "photos/one/1.png", "one"),
        (photos / "one" / "1.png", "photos/one/1.png", "one"),
        (photos / "zero" / "deeper" / "0.png", "photos/zero/deeper/0.png", None),
        (photos / "zero" / "deeper", "photos/zero/deeper/0.png", None),
        (photos, "photos/zero/deeper/0.png", "zero"),
    ):
        found = {entry.name: entry.true_class for entry in find_images([given], NAMES)}
        assert found[file] == expected


def test_what_cannot_be_done(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    """All errors are found before the first prediction."""
    Path("empty").mkdir()
    Path("there.csv").write_text("kept")
    for arguments, message in (
        (
            ["empty"],
            "'empty': no images in the folder, expected files such as .jpg or .png. Give another folder",
        ),
        (["missing.png"], "file not found: 'missing.png'. Give image files or folders that exist"),
        (
            [photos, "--out", "there.csv"],
            "'there.csv' exists already. Give another --out, or --force to replace it",
        ),
        ([photos, "--out", "nowhere/p.csv"], "expected a file in an existing folder, e.g. predictions.csv"),
        ([photos, "--out", "empty"], "--out: got 'empty', expected a file"),
        ([photos, "--all"], "--all needs --out, the table to add columns to. Add --out predictions.csv"),
        ([photos, "--sort-into", photos], "'photos' is not an empty folder. Choose another --sort-into"),
        ([photos, "--sort-into", "there.csv"], "'there.csv' is not an empty folder"),
    ):
        ended = igcv_command("predict", weights, *arguments, "--device", "cpu")
        assert (ended.status, ended.out) == (2, "")
        assert message in ended.err and ended.err.count("\n") == 1
    assert Path("there.csv").read_text() == "kept"
    file = photos / "one" / "1.png"
    assert (
        igcv_command("predict", weights, file, "--out", "there.csv", "--force", "--device", "cpu").status == 0
    )
    assert [row["file"] for row in rows_of(Path("there.csv"))] == [str(file)]
    for name, value in (("threshold", 1.5), ("top", 0), ("batch_size", 0)):
        with pytest.raises(igcv.InputError, match=f"{name}: got {value}, expected"):
            igcv.predict(weights, file, **{name: value})  # type: ignore[arg-type]
