"""Folders as sources: parts by name, nested and system folders, class order, copies in two parts."""

import os
import shutil
from pathlib import Path

import pytest

import igcv
from igcv.data.inspection import copies
from igcv.data.sources.open import open_source
from igcv.errors import InputError
from tests.conftest import Igcv
from tests.test_sources import fill, png, shades

TINY = ("model=igcv3_w_010", "input_size=16", "batch_size=4", "epochs=1", "workers=0", "precision=float32")
PARTS = {"a": 2, "b": 2}


def parts(root: Path, *names: str) -> Path:
    """Write folders of two classes with two images each, with different shades in each part."""
    for number, name in enumerate(names):
        for folder, count in PARTS.items():
            (root / name / folder).mkdir(parents=True)
            for i in range(count):
                (root / name / folder / f"{i}.png").write_bytes(png(10 * number + i))
    return root


@pytest.mark.parametrize(
    "train, val, test",
    [
        ("train", "valid", "test"),
        ("Train", "Valid", "Test"),
        ("TRAINING", "Validation", "testing"),
        ("training_set", "validation_set", "test_set"),
        ("train", "dev", "test"),
        ("train_images", "eval", "Test Data"),
        ("train ", "val ", "test "),  # names with a trailing space
    ],
)
def test_parts_under_other_names(train: str, val: str, test: str, tmp_path: Path) -> None:
    source = open_source(f"folder:{parts(tmp_path / 'photos', test, train, val)}")
    assert (shades(source.test), shades(source.train), shades(source.val)) == (
        [0, 1, 0, 1],
        [10, 11, 10, 11],
        [20, 21, 20, 21],
    )
    said = f"photos: {train}/ for training, {val}/ for validation, {test}/ for final accuracy"
    assert source.notes == (said,) and source.class_names == ("a", "b")


@pytest.mark.parametrize("train, test", [("Train", "Test"), ("training", "testing")])
def test_two_parts_are_no_classes(train: str, test: str, tmp_path: Path) -> None:
    source = open_source(f"folder:{parts(tmp_path / 'photos', train, test)}")
    assert source.class_names == ("a", "b") and (len(source.train), len(source.val)) == (4, 4)
    assert source.notes[1] == (
        f"no val/ folder: {test}/ is used for validation, so no images are left for the final accuracy"
    )


def test_what_is_left_out_is_said(tmp_path: Path) -> None:
    root = parts(tmp_path / "photos", "train", "val", "extra")
    (root / "test").mkdir()
    (root / "test" / "1.jpg").write_bytes(png(1))
    for stray in (root / "cover.png", root / "train" / "stray.png"):
        stray.write_bytes(png(1))
    assert open_source(str(root)).notes == (
        "photos: train/ for training, val/ for validation; not used: extra/, test/ (no class folders)",
        "2 images lie outside the class folders and are left out",
    )


def test_an_empty_validation_folder(tmp_path: Path) -> None:
    """The images of train/ are split then, and a line gives the reason."""
    root = parts(tmp_path / "photos", "train")
    (root / "val").mkdir()
    source = open_source(str(root))
    assert (
        source.divided and source.notes[0] == "photos: train/ for training; not used: val/ (no class folders)"
    )
    parts(root, "test")
    source = open_source(str(root))
    assert source.divided and len(source.test) == 4
    assert source.notes[0].startswith("photos: train/ for training, test/ for final accuracy; not used: val/")


def test_classes_that_validation_images_lack(tmp_path: Path) -> None:
    root = parts(tmp_path / "photos", "train", "val")
    shutil.rmtree(root / "val" / "a")
    source = open_source(str(root))
    assert source.class_names == ("a", "b") and source.val.labels.tolist() == [1, 1]
    assert source.notes[1] == "val/ has no images of the classes: a"


@pytest.mark.parametrize(
    "folders, flat, message",
    [
        (
            ("val", "valid"),
            (),
            r"photos: val/ and valid/ are both named as validation images, expected one folder",
        ),
        (("Train", "train"), (), r"photos: Train/ and train/ are both named as training images"),
        (
            ("train",),
            ("val",),
            r"photos/val: has 1 images and no class folders, expected a folder of images for each",
        ),
        (
            (),
            ("train", "test"),
            r"photos/t\w+: has 1 images and no class folders.*t\w+/CLASS/, or give their labels",
        ),
        (
            ("train",),
            ("bus", "car"),
            r"train/ has class folders like a part, but is next to bus/, car/ like a class.*folder:.*photos/train",
        ),
    ],
)
def test_what_cannot_be_meant(folders: tuple, flat: tuple, message: str, tmp_path: Path) -> None:
    root = parts(tmp_path / "photos", *folders)
    for name in flat:
        fill(root, {name: 1})
    with pytest.raises(InputError, match=message):
        open_source(str(root))


def test_classes_that_are_called_like_parts(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", {"bus": 1, "train": 2, "test": 1})
    source = open_source(str(root))
    assert source.class_names == ("bus", "test", "train")
    assert source.notes[0] == "test/ is read as a class: it has no class folders"


@pytest.mark.parametrize("inner", ["photos", "photos/archive"])
def test_a_wrapping_folder(inner: str, tmp_path: Path) -> None:
    """Nested folders of an unpacked archive are found, also with the extra folder of macOS."""
    fill(tmp_path / "data" / inner, {"a": 3, "b": 3})
    fill(tmp_path / "data" / "__MACOSX" / "photos", {"a": 3})
    source = open_source(f"folder:{tmp_path / 'data'}")
    assert source.class_names == ("a", "b") and len(source.train) + len(source.val) == 6
    assert source.notes[0] == f"the class folders are in {tmp_path / 'data' / inner}"
    same = open_source(f"folder:{tmp_path / 'data' / inner}")
    assert [same.val.key(i) for i in range(len(same.val))] == [
        source.val.key(i) for i in range(len(source.val))
    ]


def test_wrapped_parts(tmp_path: Path) -> None:
    parts(tmp_path / "data" / "pets" / "training_set", "training_set")
    parts(tmp_path / "data" / "pets", "val")
    source = open_source(str(tmp_path / "data"))
    assert source.class_names == ("a", "b") and (len(source.train), len(source.val)) == (4, 4)


def test_one_class_is_refused(tmp_path: Path, igcv_command: Igcv) -> None:
    """Images directly in the single folder of an archive would be one class, with an accuracy of 100 %."""
    fill(tmp_path / "data", {"photos": 8}, (16, 16))
    for command in ("train", "check"):
        data = ("--data",) if command == "train" else ()
        ended = igcv_command(command, *data, f"folder:{tmp_path / 'data'}", *TINY)
        assert ended.status == 2
        assert (
            "data' has one class (photos), expected two or more. Give a folder with one folder per class"
            in ended.err
        )


@pytest.mark.parametrize(
    "system",
    [
        ".ipynb_checkpoints",
        "@eaDir",
        ".Trash-1000",
        ".AppleDouble",
        "__MACOSX",
        "__MacOSX",
        "$RECYCLE.BIN",
        "#recycle",
    ],
)
def test_folders_of_systems(system: str, tmp_path: Path) -> None:
    """System folders are skipped in a class, next to classes, and next to parts."""
    root = parts(tmp_path / "photos", "train", "val")
    for place in (root, root / "train", root / "train" / "a", root / "train" / "a" / "more"):
        fill(place / system, {"a": 1})
        (place / system / "copy.png").write_bytes(png(99))
    for name in (".DS_Store", "Thumbs.db", "desktop.ini", "._0.png"):
        (root / "train" / "a" / name).write_bytes(b"no image")
    source = open_source(str(root))
    assert shades(source.train) == [0, 1, 0, 1] and source.class_names == ("a", "b")
    assert source.notes == ("photos: train/ for training, val/ for validation",)


def test_links(tmp_path: Path) -> None:
    """Links to class and part folders are read like folders."""
    parts(tmp_path / "disk", "train", "val")
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "train").symlink_to(tmp_path / "disk" / "train")
    (tmp_path / "photos" / "valid").mkdir()
    for name in PARTS:
        (tmp_path / "photos" / "valid" / name).symlink_to(tmp_path / "disk" / "val" / name)
    source = open_source(str(tmp_path / "photos"))
    assert shades(source.train) == [0, 1, 0, 1] and shades(source.val) == [10, 11, 10, 11]


def test_classes_in_natural_order(tmp_path: Path) -> None:
    from timm.utils import natural_key

    names = ["10", "2", "1", "b", "A", "img12", "img3", "x²"]
    fill(tmp_path / "photos", dict.fromkeys(names, 2))
    expected = ("1", "2", "10", "A", "b", "img3", "img12", "x²")
    assert open_source(str(tmp_path / "photos")).class_names == expected
    assert sorted(set(names) - {"x²"}, key=natural_key) == [name for name in expected if name != "x²"]
    rows = [f"{i}/0.png,{i}" for i in (10, 9, 1)]
    for i in (9,):
        fill(tmp_path / "photos", {str(i): 1})
    (tmp_path / "list.csv").write_text("path,label\n" + "\n".join(rows))
    assert open_source(str(tmp_path / "photos"), split=tmp_path / "list.csv").class_names == ("1", "9", "10")


def test_copies_by_content(tmp_path: Path) -> None:
    """Equal bytes count under any name; equal sizes or ends do not."""
    contents = {
        "a": b"x" * 5000,
        "b": b"y" + b"x" * 4999,
        "c": b"x" * 5000,
        "d": b"x" * 4999,
        "e": b"",
        "f": b"",
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
    os.mkfifo(tmp_path / "pipe")
    paths = {name: str(tmp_path / name) for name in (*contents, "pipe", "gone")}
    sets = [[paths["a"], paths["e"], paths["gone"]], [paths[name] for name in ("b", "c", "d", "f", "pipe")]]
    assert copies(sets) == [[(0, paths["a"]), (1, paths["c"])]]
    assert copies([[paths["a"], paths["c"]], [paths["b"]]]) == []  # both in one set


def test_copies_in_two_parts_are_counted(digit_folder: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    root = Path(shutil.copytree(digit_folder, tmp_path / "photos"))
    for i in (0, 1):
        shutil.copy(root / "train" / "one" / f"{i}.png", root / "val" / "one" / f"copy{i}.png")
    shutil.copytree(root / "val", root / "test")
    ended = igcv_command("train", "--data", root, "--out", tmp_path / "run", "--device", "cpu", *TINY)
    assert ended.status == 0
    assert "photos: train/ for training, val/ for validation, test/ for final accuracy" in ended.out
    assert (
        "caution: 2 of 12 validation images are copies of training images, so the validation accuracy"
        in ended.out
    )
    assert "caution: 12 of 12 test images are copies of training or validation images" in ended.out
    clean = igcv_command(
        "train", "--data", digit_folder, "--out", tmp_path / "clean", "--device", "cpu", *TINY
    )
    assert clean.status == 0 and "copies of" not in clean.out


def test_copies_are_not_looked_for_in_large_sets(
    digit_folder: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("igcv.training.cautions.COMPARED", 30)
    ended = igcv_command("train", "--data", digit_folder, "--out", tmp_path / "run", "--device", "cpu", *TINY)
    assert "no search for copies among 34 images; igcv check finds copies in different parts" in ended.out


def test_a_class_that_a_list_never_trains(digit_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("path,label,split\none/0.png,one,train\nzero/0.png,zero,val\n")
    with pytest.raises(
        InputError, match=r"list.csv: class without training images: zero, expected at least one each"
    ):
        igcv.train(
            data=str(digit_folder / "train"), split=tmp_path / "list.csv", out=tmp_path / "run", quiet=True
        )
