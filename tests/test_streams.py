"""Streams: WebDataset shards read by timm, from the folder to a trained network."""

import gc
import json
import pickle
import tarfile
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from importlib.util import find_spec
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import EpsImagePlugin, Image
from sklearn.datasets import load_digits

from igcv.classifier import Classifier
from igcv.data import BadImageError, Finish, LoaderSettings, StreamImages, make_loader
from igcv.data.classes import NAME
from igcv.data.preprocessing import Preprocessing, plain_transform
from igcv.data.sources.open import open_source
from igcv.deploy.exporter import images_to_compare
from igcv.deploy.samples import sample_pixels
from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.models import build_model
from igcv.training import load_recipe
from igcv.training.job import resolve
from igcv.training.phases import train_in
from igcv.weights.card import Card

pytestmark = [
    pytest.mark.skipif(find_spec("webdataset") is None, reason="needs the package webdataset"),
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # webdataset never closes a shard
]

PLAIN = Preprocessing(16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, "bilinear")
CARD = Card(
    model="igcv3_w_010",
    num_classes=2,
    input_size=16,
    strides=(1, 1, 1, 2, 2, 1, 1, 1),
    preprocessing=PLAIN.to_dict(),
)
TRAIN, VAL = ("train-0.tar", "train-1.tar"), ("val-0.tar",)
COUNTS = {"train-0.tar": 20, "train-1.tar": 13, "val-0.tar": 11}


@pytest.fixture(autouse=True, scope="module")
def _frozen() -> Iterator[None]:
    """Freeze objects created before these tests, so that each garbage collection skips them."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _collected() -> Iterator[None]:
    """Close shards, so that no later test warns about them."""
    yield
    gc.collect()


@cache
def digit(i: int) -> tuple[Image.Image, int]:
    """Return handwritten zero or one number `i`."""
    digits = load_digits(n_class=2)
    pixels = (digits.images[i] * 15.9).astype("uint8")
    return Image.fromarray(pixels).convert("RGB").resize((16, 16)), int(digits.target[i])


def write_shard(path: Path, samples: list[tuple[bytes, int]]) -> None:
    with tarfile.open(path, "w") as tar:
        for i, (encoded, label) in enumerate(samples):
            for end, content in (("png", encoded), ("cls", str(label).encode())):
                member = tarfile.TarInfo(f"{i:05}.{end}")
                member.size = len(content)
                tar.addfile(member, BytesIO(content))


def write_info(folder: Path, splits: dict[str, tuple[str, ...]], **more: object) -> None:
    described = {
        name: {
            "name": name,
            "num_samples": sum(COUNTS[file] for file in files),
            "filenames": files,
            "shard_lengths": [COUNTS[file] for file in files],
        }
        for name, files in splits.items()
    }
    (folder / "_info.json").write_text(json.dumps({"splits": described, **more}))


def png(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def shards(tmp_path: Path) -> Path:
    """Write 33 training images in two shards and 11 validation images in one."""
    first = 0
    for name, count in COUNTS.items():
        drawn = [digit(i) for i in range(first, first + count)]
        write_shard(tmp_path / name, [(png(image), label) for image, label in drawn])
        first += count
    write_info(tmp_path, {"train": TRAIN, "validation": VAL})
    return tmp_path


def loader(images, batch_size=8, finish=Finish(PLAIN), **changes):
    settings = LoaderSettings(batch_size=batch_size, **{"train": True, "skip_bad": True} | changes)
    return make_loader(images, plain_transform(PLAIN), finish, settings)


def numbers(batches, first: int, count: int) -> list[int]:
    """Return the numbers of the loaded digits, after a check of their labels."""
    known = [digit(i) for i in range(first, first + count)]
    pixels = np.stack([np.asarray(image, np.float32)[..., 0] / 255 for image, _ in known])
    found = []
    for images, labels in batches:
        for image, label in zip(images.numpy(), labels.tolist(), strict=True):
            error = np.abs(pixels - image[0]).max(axis=(1, 2))
            assert error.min() < 1e-3
            assert known[error.argmin()][1] == label
            found.append(first + int(error.argmin()))
    return found


def test_what_a_folder_of_shards_opens(shards, monkeypatch):
    source = open_source(f"timm/wds/{shards}")
    assert (len(source.train), len(source.val), source.image_size) == (33, 11, 16)
    assert source.class_names == ("0", "1")
    assert len(pickle.loads(pickle.dumps(source.train))) == 33
    monkeypatch.chdir(shards.parent)
    assert len(open_source(f"timm/wds/{shards.name}").train) == 33
    write_info(shards, {"train": TRAIN}, num_classes=3)
    without = open_source(f"timm/wds/{shards}")
    assert without.class_names == ("0", "1", "2") and without.val is None
    as_val = open_source(f"timm/wds/{shards}", seed=None)
    assert as_val.train is None and len(as_val.val) == 33
    (shards / "classes.txt").write_text("zero\none\n")
    write_info(shards, {"validation": VAL})
    only_val = open_source(f"timm/wds/{shards}")
    assert only_val.train is None and only_val.class_names == ("zero", "one")


@pytest.mark.parametrize("workers", [0, 1, 2, 5])
def test_training_gives_full_batches_with_their_labels(shards, workers):
    batches = loader(open_source(f"timm/wds/{shards}").train, workers=workers)
    first = list(batches)
    assert len(batches) == len(first) == 4 and all(len(labels) == 8 for _, labels in first)
    seen = numbers(first, 0, 33)
    assert seen != sorted(seen) and (workers > 1 or len(set(seen)) == 32)
    assert numbers(batches, 0, 33) == seen
    batches.set_epoch(1)
    assert numbers(batches, 0, 33) != seen
    batches.set_epoch(0)
    assert numbers(batches, 0, 33) == seen


@pytest.mark.parametrize("workers", [0, 2])
def test_a_pass_from_a_batch_on(shards, workers):
    """A stream resumes within an epoch with the same images, augmentation and noise."""
    finish = Finish(PLAIN, random_erasing=0.9)
    expected = list(loader(open_source(f"timm/wds/{shards}").train, finish=finish, workers=workers))
    batches = loader(open_source(f"timm/wds/{shards}").train, finish=finish, workers=workers)
    for start in (3, 1, 4):
        batches.set_epoch(0, start)
        found = list(batches)
        assert len(found) == 4 - start
        for (images, labels), (others, names) in zip(found, expected[start:], strict=True):
            assert torch.equal(images, others) and torch.equal(labels, names)
    assert batches.names(0) == []


def test_erasing_follows_seed_and_epoch(shards):
    finish = Finish(PLAIN, random_erasing=0.5)
    batches = loader(open_source(f"timm/wds/{shards}").train, finish=finish, workers=2)
    first, again = ([images for images, _ in batches] for _ in range(2))
    plain = [images for images, _ in loader(open_source(f"timm/wds/{shards}").train, workers=2)]
    assert all(map(torch.equal, first, again))
    erased = sum(
        bool((a != b).any()) for x, y in zip(first, plain, strict=True) for a, b in zip(x, y, strict=True)
    )
    assert 8 < erased < 24


def test_a_stream_cannot_be_resident(shards):
    recipe = load_recipe(None, [f"data=timm/wds/{shards}", "resident=on"])
    with pytest.raises(
        InputError, match=r"resident = on, but 'timm/wds/\S+' can only be read as a stream. Give the"
    ):
        resolve(recipe, Process(torch.device("cpu")))


def test_processes_train_on_shards_of_their_own(shards):
    images = open_source(f"timm/wds/{shards}").train
    parts = [loader(images, 4, rank=rank, world_size=2) for rank in range(2)]
    seen = [set(numbers(part, 0, 33)) for part in parts]
    assert [len(part) for part in parts] == [4, 4] and not seen[0] & seen[1]
    with pytest.raises(InputError, match="got 2 training shards for 3 processes, expected at least one"):
        loader(images, 4, world_size=3)
    assert len(list(loader(images, 100))) == 1


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("part, first, count", [("train", 0, 33), ("val", 33, 11)])
def test_evaluation_gives_every_image_once(shards, world_size, workers, part, first, count):
    images = getattr(open_source(f"timm/wds/{shards}"), part)
    parts = [
        loader(images, 5, train=False, workers=workers, rank=rank, world_size=world_size)
        for rank in range(world_size)
    ]
    seen = [numbers(batches, first, count) for batches in parts]
    assert sorted(chain(*seen)) == list(range(first, first + count))
    if not workers:
        assert [len(list(batches)) for batches in parts] == [len(batches) for batches in parts]


@pytest.mark.parametrize("workers", [0, 1])
def test_unreadable_images(shards, workers):
    images = [digit(i) for i in range(20)]
    write_shard(
        shards / "train-0.tar",
        [
            (b"no image" if i == 3 else png(image)[: 60 if i == 19 else None], label)
            for i, (image, label) in enumerate(images)
        ],
    )
    images = open_source(f"timm/wds/{shards}").train
    batches = loader(images, workers=workers)
    assert [len(labels) for _, labels in batches] == [8, 8, 8, 8]
    list(batches)
    assert 1 <= len(batches.bad) <= 2 and all("train-0.tar 000" in name for name in batches.bad)
    evaluated = loader(images, train=False, workers=workers)
    assert sum(len(labels) for _, labels in evaluated) == 31
    assert [name[-5:] for name in evaluated.bad] == ["00003", "00019"]
    with pytest.raises(
        BadImageError,
        match=r"train-0.tar 00003: not a readable sample \(cannot identify image file\). Replace or remove it",
    ):
        list(loader(images, train=False, workers=workers, skip_bad=False))
    with pytest.raises(InputError, match="2 images cannot be read, expected at most 1"):
        list(loader(images, train=False, workers=workers, max_bad=1))


@pytest.mark.parametrize("workers", [0, 1])
def test_labels_are_checked_on_the_way(shards, workers):
    write_shard(shards / "val-0.tar", [(png(digit(i)[0]), 7 if i == 2 else 0) for i in range(11)])
    val = open_source(f"timm/wds/{shards}").val
    with pytest.raises(InputError, match="validation sample 2: got label 7, expected 0 to 1 for 2 class"):
        list(loader(val, train=False, workers=workers))


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(
    "size", [13_653, 14_336, 14_400]
)  # within a header, between members, within an image
def test_a_shard_that_is_cut_short(shards, workers, size):
    (shards / "classes.txt").write_text("zero\none\n")
    images = open_source(f"timm/wds/{shards}").train
    (shards / "train-1.tar").write_bytes((shards / "train-1.tar").read_bytes()[:size])
    with pytest.raises(
        BadImageError, match=r"the shards end here, expected \d+ samples. Replace a truncated shard"
    ):
        list(loader(images, train=False, workers=workers))
    assert len(list(loader(images, workers=workers))) == 4


def test_without_the_package(shards, monkeypatch):
    monkeypatch.setattr("timm.data.readers.reader_wds.wds", None)
    with pytest.raises(
        InputError, match=r"cannot be opened \(RuntimeError: Please install webdataset.*wds: web"
    ):
        open_source(f"timm/wds/{shards}")


def test_errors(shards, tmp_path):
    with pytest.raises(InputError, match=r"folder not found: '.*none'\. Give a folder with shards"):
        open_source(f"timm/wds/{tmp_path / 'none'}")
    (shards / "val-0.tar").unlink()
    with pytest.raises(InputError, match=r"shard not found: '.*val-0.tar'. Correct 'filenames'"):
        open_source(f"timm/wds/{shards}")
    write_info(shards, {"other": TRAIN})
    with pytest.raises(InputError, match="has none of the splits train, validation and test"):
        open_source(f"timm/wds/{shards}")
    (shards / "_info.json").unlink()
    with pytest.raises(InputError, match=r"has neither _info.json nor info.json. Write an info file with"):
        open_source(f"timm/wds/{shards}")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_network_trains_on_shards(shards, tmp_path, workers):
    settings = ["model=igcv3_w_025", "input_size=16", "batch_size=8", "epochs=1", f"workers={workers}"]
    recipe = load_recipe(None, [*settings, f"data=timm/wds/{shards}"])
    summary = train_in(Process(torch.device("cpu")), recipe, tmp_path / "run", quiet=True)
    assert summary["last"]["images"] == 11 and summary["bad_images"] == 0
    assert isinstance(open_source(recipe.data).val, StreamImages)


def test_images_to_compare_and_to_quantize_with_come_from_a_stream(shards):
    source = open_source(f"timm/wds/{shards}")
    before = EpsImagePlugin.gs_binary
    compared, quantized = (sample_pixels(source, PLAIN, 5, train=train) for train in (False, True))
    assert compared.shape == quantized.shape == (5, 16, 16, 3)
    expected = np.stack([np.asarray(digit(33 + i)[0]) for i in range(5)])
    assert np.abs(compared.astype(int) - expected).max() <= 1
    known = {np.asarray(digit(i)[0]).tobytes() for i in range(33)}
    assert all(image.tobytes() in known for image in quantized)
    assert EpsImagePlugin.gs_binary is before
    card = replace(CARD, recipe={"data": source.spec})
    said: list[str] = []
    classifier = Classifier(build_model("igcv3_w_010", 2, input_size=16), card)
    chosen = images_to_compare(classifier, None, NAME, said.append)
    assert chosen is not None and chosen.spec == source.spec and said == []
