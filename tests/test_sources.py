"""Sources: the images of each spec, their split, and the text of every error."""

import os
import pickle
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import timm.data
import torchvision.datasets
from PIL import Image

from igcv.data import BadImageError, decode, split_indices, write_records
from igcv.data.sources.open import open_source
from igcv.errors import InputError

PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "imagenet_photos"


def refused(message: str, kind: type[Exception] = InputError):
    return pytest.raises(kind, match=message)


def png(shade: int, size: tuple[int, int] = (8, 8)) -> bytes:
    file = BytesIO()
    Image.new("RGB", size, (shade, shade, shade)).save(file, "PNG")
    return file.getvalue()


def fill(root: Path, classes: dict[str, int], size: tuple[int, int] = (8, 8)) -> Path:
    """Write class folders with the given numbers of images; the shade of an image is its number in the class."""
    for name, count in classes.items():
        (root / name).mkdir(parents=True)
        for i in range(count):
            (root / name / f"{i}.png").write_bytes(png(i, size))
    return root


def shades(images) -> list[int]:
    return [images[i][0].getpixel((0, 0))[0] for i in range(len(images))]


def test_split_takes_the_fraction_of_each_class():
    labels = np.repeat([0, 1, 2, 5], [100, 10, 2, 1])
    first, second = split_indices(labels, 0.2, seed=0)
    assert np.bincount(labels[second], minlength=6).tolist() == [20, 2, 1, 0, 0, 0]
    assert sorted([*first, *second]) == list(range(113))
    again, other = split_indices(labels, 0.2, seed=0)[1], split_indices(labels, 0.2, seed=1)[1]
    assert (second == again).all() and not np.array_equal(second, other)
    assert len(split_indices(labels, 0.99, seed=0)[0]) == 1 + 1 + 1 + 1  # never a whole class
    with refused("validation fraction: got 1.5, expected a number between 0 and 1"):
        split_indices(labels, 1.5, seed=0)


def test_digits():
    source = open_source("digits", seed=0)
    assert (len(source.train), len(source.val), source.image_size) == (1438, 359, 8)
    assert source.class_names == tuple("0123456789")
    assert source.train.labels[:50].tolist() == open_source("digits", seed=5).train.labels[:50].tolist()
    pixels = np.stack([np.asarray(source.val[i][0]) for i in range(len(source.val))])
    assert pixels.shape == (359, 8, 8, 3) and (pixels.min(), pixels.max()) == (0, 255)
    assert set(np.unique(pixels)) == {round(v * 255 / 16) for v in range(17)}
    assert source.val[7][1] == source.val.labels[7] and source.val.name(7).startswith("digits image ")


def tiny_imagenet(root: Path) -> Path:
    """Write two classes of Tiny-ImageNet with three training and two validation images, as in its archive."""
    for wnid in ("n02", "n01"):
        fill(root / "train" / wnid, {"images": 3}, (64, 64))
        (root / "train" / wnid / f"{wnid}_boxes.txt").write_text("n01_0.JPEG\t0\t0\t62\t62\n")
    fill(root / "val", {"images": 2}, (64, 64))
    (root / "val" / "val_annotations.txt").write_text("1.png\tn01\t0\t0\t1\t1\n0.png\tn02\t0\t0\t1\t1\n")
    (root / "wnids.txt").write_text("n02\nn01")
    (root / "words.txt").write_text(
        "n00\tentity\nn01\tgoldfish, Carassius auratus\nn02\ttailed frog, bell toad\n"
    )
    return root


def test_tiny_imagenet(tmp_path):
    root = tiny_imagenet(tmp_path)
    source = open_source(f"tinyimagenet:{root}")
    assert source.class_names == ("goldfish", "tailed frog")
    assert source.train.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert (shades(source.val), source.val.labels.tolist()) == ([1, 0], [0, 1])
    assert source.image_size == 64


@pytest.mark.parametrize(
    "file, text, message",
    [
        ("wnids.txt", None, "wnids.txt: cannot be read .* expected a file of tiny-imagenet-200"),
        ("words.txt", "n01 goldfish\n", "got the line 'n01 goldfish', expected 2 tab-separated columns"),
        (
            "words.txt",
            "n01\tgoldfish\n",
            "1 unknown class identifiers, expected tiny-imagenet-200 as published",
        ),
        ("val/val_annotations.txt", "0.png\tn09\t0\n", "1 unknown class identifiers"),
        ("val/val_annotations.txt", "", "found 6 training and 0 validation images"),
    ],
)
def test_damaged_tiny_imagenet(file, text, message, tmp_path):
    path = tiny_imagenet(tmp_path) / file
    path.unlink() if text is None else path.write_text(text)
    with refused(message):
        open_source(f"tinyimagenet:{tmp_path}")


def test_folder_of_classes(tmp_path):
    fill(tmp_path, {"cat": 10, "ant": 5, ".hidden": 1})
    (tmp_path / "cat" / "deeper").mkdir()
    (tmp_path / "cat" / "deeper" / "UPPER.JPEG").write_bytes(png(99))
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    for hidden in (".thumbnails/0.png", "deeper/.0.png"):
        (tmp_path / "cat" / hidden).parent.mkdir(exist_ok=True)
        (tmp_path / "cat" / hidden).write_bytes(png(98))
    source = open_source(f"folder:{tmp_path}")
    assert source.class_names == ("ant", "cat") and source.image_size == 8
    # sha256sum: below 3333... are ant/4.png (15cd...) and cat/0, 5, 7 and 8.png (1a07, 2da9, 2572, 04de)
    assert shades(source.val) == [4, 0, 5, 7, 8] and source.val.labels.tolist() == [0, 1, 1, 1, 1]
    assert len(source.train) == 11 and source.divided and source.test is None and source.notes == ()
    assert 99 in shades(source.train) + shades(source.val)
    assert open_source(str(tmp_path)).val.labels.tolist() == source.val.labels.tolist()
    assert shades(open_source(str(tmp_path), seed=1).val) != shades(source.val)
    assert source.val.name(0).startswith(str(tmp_path / "ant"))
    assert shades(pickle.loads(pickle.dumps(source.val))) == shades(source.val)


@pytest.mark.parametrize("val_name", ["val", "validation", "test"])
def test_folder_with_parts(tmp_path, val_name):
    fill(tmp_path / "train", {"a": 3, "b": 2}, (8, 6))
    fill(tmp_path / val_name, {"a": 1, "b": 1})
    source = open_source(f"folder:{tmp_path}")
    assert (len(source.train), len(source.val), source.image_size) == (5, 2, None)
    assert source.val.labels.tolist() == [0, 1]


def test_folder_with_one_part_or_single_images(tmp_path):
    only_val = open_source(f"folder:{fill(tmp_path / 'v' / 'val', {'a': 1, 'b': 1}).parent}")
    assert only_val.train is None and len(only_val.val) == 2
    only_train = open_source(f"folder:{fill(tmp_path / 't' / 'train', {'a': 5, 'b': 5}).parent}")
    assert (len(only_train.train), len(only_train.val)) == (7, 3)  # train/a/2, train/a/4 and train/b/0.png
    single = open_source(f"folder:{fill(tmp_path / 's', {'a': 1, 'test': 1})}")  # "test" is a class here
    assert single.val is None and single.class_names == ("a", "test")


def deny(folder: Path) -> None:
    raise PermissionError(13, "Denied", str(folder))


def test_folder_errors(tmp_path, monkeypatch):
    with refused(r"none: cannot be read as a folder \(No such file or directory\), expected"):
        open_source(f"folder:{tmp_path / 'none'}")
    (tmp_path / "file").write_text("")
    with refused(r"file: cannot be read as a folder \(Not a directory\)"):
        open_source(f"folder:{tmp_path / 'file'}")
    (tmp_path / "flat").mkdir()
    with refused("flat: has 0 images and no class folders, expected a folder of images for"):
        open_source(f"folder:{tmp_path / 'flat'}")
    (tmp_path / "flat" / "a.png").write_bytes(png(0))
    with refused("flat: has 1 images and no class folders.*Move the images into folders"):
        open_source(f"folder:{tmp_path / 'flat'}")
    fill(tmp_path / "gap", {"full": 1, "void": 0})
    with refused("gap/void: the class 'void' has no images, expected files ending in .jpg,"):
        open_source(f"folder:{tmp_path / 'gap'}")
    monkeypatch.setattr(os, "scandir", deny)
    with refused(r"gap: cannot be read as a folder \(Denied\).*Check the path and its perm"):
        open_source(f"folder:{tmp_path / 'gap'}")


def test_parts_must_have_the_same_classes(tmp_path):
    fill(tmp_path / "train", {"a": 1, "b": 1})
    fill(tmp_path / "val", {"a": 1, "c": 1})
    with refused(
        r"train/ and val/ have different class folders, expected the same in both. "
        r"Only in one: 'b', 'c' \(2 in all\)"
    ):
        open_source(f"folder:{tmp_path}")


def test_rec_files_and_class_names(tmp_path):
    train, val = tmp_path / "t.rec", tmp_path / "v.rec"
    write_records(train, [(i % 2, png(i)) for i in range(20)])
    write_records(val, [(1, png(50)), (2, png(51))])
    both = open_source(f"rec:{train},{val}")
    assert (len(both.train), len(both.val), both.class_names, both.image_size) == (20, 2, ("0", "1", "2"), 8)
    assert shades(both.val) == [50, 51] and both.val[1][1] == 2 and both.val.name(1) == f"{val} record 1"
    only_val = open_source(f"rec:,{val}")
    assert only_val.train is None and shades(only_val.val) == [50, 51]
    split = open_source(f"rec:{train}")
    assert shades(split.val) == [8, 9] and len(split.train) == 18  # SHA-256 of 8 and 9: 2c62..., 1958...
    (tmp_path / "synset.txt").write_text("n01 tench, Tinca\nn02\n\n")
    assert open_source(f"rec:{train}").class_names == ("n01 tench, Tinca", "n02")
    for spec in (f"rec:{train},{val}", f"rec:{val}"):
        with refused("v.rec record 1: got label 2, expected 0 to 1 for 2 class names. Correct"):
            open_source(spec)


def faces(path: Path, with_index: bool) -> Path:
    """Write three persons with two images each, as in face recognition: header and table of persons after the images.

    The header has the key 0, and the numbers of its first and its last table record as labels. An image has two labels:
    its person and whether it is aligned.
    """
    images = [((i // 2, 1.0), png(10 + i)) for i in range(6)]
    tables = [((7.0, 10.0), b""), *(((1.0 + 2 * i, 3.0 + 2 * i), b"") for i in range(3))]
    write_records(path, [*images, *tables])
    index = path.with_suffix(".idx")
    offsets = [line.split("\t")[1] for line in index.read_text().splitlines()]
    keys = [*range(1, 7), 0, *range(7, 10)]
    index.write_text("".join(f"{key}\t{offset}\n" for key, offset in zip(keys, offsets, strict=True)))
    if not with_index:
        index.unlink()
    return path


@pytest.mark.parametrize("with_index", [True, False])
def test_records_of_faces(tmp_path, with_index):
    file = faces(tmp_path / "faces.rec", with_index)
    source = open_source(f"rec:,{file}")
    assert source.class_names == ("0", "1", "2") and source.val.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert shades(source.val) == [10, 11, 12, 13, 14, 15] and source.val.name(0) == f"{file} record 0"
    assert source.notes == ("faces.rec: 4 records without an image (header, tables) are left out",)
    assert source.val.key(0) == ("1" if with_index else "0")


def test_records_without_labels(tmp_path):
    file = tmp_path / "some.rec"
    write_records(file, [(-1 if i % 3 == 0 else i % 3 - 1, png(i)) for i in range(9)])
    source = open_source(f"rec:,{file}")
    assert source.class_names == ("0", "1") and shades(source.val) == [1, 2, 4, 5, 7, 8]
    assert source.notes == ("some.rec: 3 images without a label are left out",)
    write_records(file, [(-1, png(0)), ([5, 6], b"")])
    with refused("some.rec: none of its 2 records is an image with a label, expected class numbers"):
        open_source(f"rec:{file}")


@pytest.mark.parametrize(
    "spec, message",
    [
        ("rec:,", "data source 'rec:,': got 0 files, expected rec:TRAIN.rec,VAL.rec"),
        ("rec:a,b,c", "got 3 files, expected rec:TRAIN.rec,VAL.rec"),
        ("rec:missing.rec", "missing.rec: cannot be read"),
        ("rec", "data source: got 'rec', expected the form rec:TRAIN.rec,VAL.rec"),
        ("folder:", "data source: got 'folder:', expected the form folder:FOLDER"),
        ("digits:8", "data source: got 'digits:8', expected the form digits"),
        ("timm/", "data source: got 'timm/', expected the form timm/READER/NAME"),
        (
            "digit",
            r"unknown data source 'digit'; did you mean 'digits'\? \(one of: digits, cifar10\[:FOLDER\], ",
        ),
        ("fodler:x", r"unknown data source 'fodler'; did you mean 'folder'\?"),
        (
            "/no/such/place",
            r"unknown data source '/no/such/place' \(one of: .*or an existing folder, searched in /",
        ),
        (
            "cifar10:/no/such",
            (
                r"cifar10: no complete data set in /no/such/cifar-10-batches-py \(files are missing or damaged\)\. "
                r"Unpack https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz there, or give"
            ),
        ),
    ],
)
def test_spec_errors(spec, message):
    with refused(message):
        open_source(spec)


class FakeCifar:
    base_folder, url, classes = "cifar-100-python", "https://archive", ["x", "y"]
    online = True

    def __init__(self, root, train, download=False):
        if not (download and self.online):
            raise OSError("no route to host") if download else RuntimeError("Dataset not found")
        self.data = np.full((4 if train else 2, 32, 32, 3), 7, np.uint8)
        self.targets = [0, 1, 0, 1][: len(self.data)]


def test_cifar_is_downloaded_when_that_is_possible(tmp_path, monkeypatch):
    monkeypatch.setattr(torchvision.datasets, "CIFAR100", FakeCifar)
    source = open_source("cifar100", root=tmp_path)
    assert (len(source.train), len(source.val), source.image_size) == (4, 2, 32)
    assert source.class_names == ("x", "y")
    with refused(r"cifar-100-python \(files are missing or damaged\). Unpack https://archive there"):
        open_source("cifar100", root=tmp_path, download=False)
    monkeypatch.setattr(FakeCifar, "online", False)
    with refused(r"cifar100: no complete data set in .*\(no route to host\)"):
        open_source("cifar100", root=tmp_path)


class FakeReader:
    """Stand-in for a map-style reader of timm."""

    def __init__(self, files: list[bytes], class_to_idx: dict[str, int]) -> None:
        self.files, self.class_to_idx = files, class_to_idx

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, i: int):
        return BytesIO(self.files[i]), i % 2


def test_timm_data_sets(monkeypatch):
    splits = {"train": [png(i) for i in range(10)], "test": [png(90), png(91)[:50]]}

    def create(name, root, split, download):
        if split not in splits:
            raise ValueError(f'Unknown split "{split}".')
        return SimpleNamespace(reader=FakeReader(splits[split], {"late": 1, "early": 0}))

    monkeypatch.setattr(timm.data, "create_dataset", create)
    source = open_source("timm/hfds/user/name")
    assert source.class_names == ("early", "late") and shades(source.train) == list(range(10))
    assert len(source.val) == 2 and source.val[0][1] == 0
    with refused("hfds/user/name test image 1: not a readable image", BadImageError):
        source.val[1]
    del splits["test"]
    assert np.bincount(open_source("timm/hfds/user/name").val.labels).tolist() == [1, 1]
    del splits["train"]
    with refused(
        r"timm/hfds/user/name: the train split cannot be opened \(ValueError: Unknown "
        r"split .train..\), expected a map-style data set"
    ):
        open_source("timm/hfds/user/name")


def test_unreadable_images(tmp_path):
    fill(tmp_path, {"a": 2})
    (tmp_path / "a" / "0.png").write_bytes(png(0)[:40])
    source = open_source(str(tmp_path))
    bad, good = sorted((source.train, source.val), key=lambda images: images.name(0))
    with refused(
        r"a/0.png: not a readable image \(.+\), expected a JPEG.*Replace or remove it", BadImageError
    ):
        bad[0]
    Path(good.name(0)).unlink()
    with refused(r"a/1.png: cannot be read \(No such file or directory\)", BadImageError):
        good[0]


@pytest.mark.parametrize("mode", ["L", "1", "P", "RGBA", "LA", "CMYK", "RGB"])
def test_decode_gives_rgb(mode):
    file = BytesIO()
    Image.new(mode, (3, 2)).save(file, "TIFF" if mode == "CMYK" else "PNG")
    image = decode(file.getvalue(), "x")
    assert (image.mode, image.size) == ("RGB", (3, 2))


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"needs the photos in {PHOTOS}")
def test_folder_of_photos():
    source = open_source(str(PHOTOS))
    assert len(source.train) == len(source.class_names) == 62
    assert source.val is None and source.image_size is None
    assert source.train[0][0].mode == "RGB" and source.train.name(0).endswith(".JPEG")
