"""Loaders: order of images, randomness, and unreadable images."""

import dataclasses
import multiprocessing
import random
from io import BytesIO
from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from igcv.data import (
    BadImageError,
    Finish,
    LoaderSettings,
    Moves,
    make_loader,
    train_transform,
    write_records,
)
from igcv.data.preprocessing import IMAGENET, Preprocessing, plain_transform
from igcv.data.sources.open import open_source
from igcv.errors import InputError

PLAIN = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, "bilinear")
PHOTOS = Path(__file__).parents[2] / "shared" / "data" / "imagenet_photos"


class Numbered:
    """Gray 8x8 images whose label is their number; images in `broken` cannot be read."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        self.labels, self.broken = np.arange(count), broken

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        if i in self.broken:
            raise BadImageError(f"image {i}: broken")
        return Image.new("RGB", (8, 8), (i, i, i)), i

    def name(self, i: int) -> str:
        return f"image {i}"


def loader(images, batch_size=4, transform=None, pre=PLAIN, random_erasing=0.0, **changes):
    finish = Finish(pre, random_erasing=random_erasing)
    settings = LoaderSettings(batch_size=batch_size, **{"train": True, "skip_bad": True} | changes)
    return make_loader(images, transform or plain_transform(pre), finish, settings)


def labels_of(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


def noise_image(*size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_evaluation_gives_every_image_once(world_size):
    parts = [loader(Numbered(20), 3, train=False, rank=r, world_size=world_size) for r in range(world_size)]
    seen = [labels_of(part) for part in parts]
    assert all(part == sorted(part) for part in seen)
    assert sorted(chain(*seen)) == list(range(20))
    assert [len(part) for part in parts] == [len(list(part)) for part in parts]


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_training_shares_full_batches_without_repeats(world_size):
    parts = [loader(Numbered(26), rank=r, world_size=world_size) for r in range(world_size)]
    sizes = [[len(labels) for _, labels in part] for part in parts]
    assert sizes == [[4] * (26 // (4 * world_size))] * world_size == [[4] * len(part) for part in parts]
    seen = list(chain(*map(labels_of, parts)))
    assert len(set(seen)) == len(seen) and seen != sorted(seen)


@pytest.mark.parametrize("count, world_size, expected", [(3, 1, 3), (7, 2, 3), (2, 2, 1)])
def test_a_set_smaller_than_a_batch_is_one_batch(count, world_size, expected):
    for rank in range(world_size):
        part = loader(Numbered(count), 64, rank=rank, world_size=world_size)
        assert [len(labels) for _, labels in part] == [expected] and len(part) == 1


def test_batches_hold_the_images_of_their_labels():
    for images, labels in loader(Numbered(12)):
        assert (images.shape, images.dtype, labels.dtype) == ((4, 3, 8, 8), torch.float32, torch.int64)
        assert torch.equal((images[:, 0, 0, 0] * 255).round().long(), labels)


def passes(workers: int, seed: int = 0) -> list[torch.Tensor]:
    """Return all images of epochs 0, 1 and 0 again, with every random generator in the transform."""
    transform = train_transform(PLAIN, "inception", "rand-m9-n2-mstd0.5")
    digits = open_source("digits").val
    batches = loader(digits, 50, transform, random_erasing=0.5, workers=workers, seed=seed)
    epochs = []
    for epoch in (0, 1, 0):
        batches.set_epoch(epoch)
        epochs.append(torch.cat([images for images, _ in batches]))
    return epochs


def test_batches_depend_on_seed_and_epoch_only():
    alone = passes(workers=0)
    random.seed(1), np.random.seed(1), torch.manual_seed(1)
    for first, second in zip(alone, passes(workers=2), strict=True):
        assert torch.equal(first, second)
    assert torch.equal(alone[0], alone[2]) and not torch.equal(alone[0], alone[1])
    assert not torch.equal(alone[0], passes(workers=0, seed=1)[0])


def test_an_image_is_augmented_anew_in_each_epoch():
    batches = loader(Numbered(1), 1, random_erasing=1.0)
    drawn = []
    for epoch in (0, 1, 1):
        batches.set_epoch(epoch)
        drawn += [images for images, _ in batches]
    assert not torch.equal(drawn[0], drawn[1]) and torch.equal(drawn[1], drawn[2])


def test_loading_leaves_global_random_numbers_alone():
    def draw():
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    passes(workers=0)  # the first pass imports libraries; rich draws from `random` on import
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    expected = draw()
    random.seed(3), np.random.seed(3), torch.manual_seed(3)
    passes(workers=0)
    assert draw() == expected


class Threads(Numbered):
    def __getitem__(self, i):
        return super().__getitem__(i)[0], torch.get_num_threads()


def test_a_worker_uses_one_thread():
    assert labels_of(loader(Threads(4), workers=1)) == [1] * 4


def corrupted(tmp_path: Path) -> str:
    file = BytesIO()
    noise_image(8, 8).save(file, "JPEG")
    whole = file.getvalue()
    write_records(tmp_path / "a.rec", [(i, whole[:-150] if i == 5 else whole) for i in range(12)])
    return f"rec:,{tmp_path / 'a.rec'}"


@pytest.mark.parametrize("workers", [0, 1])
def test_training_replaces_a_corrupt_jpeg_by_the_next_image(tmp_path, workers):
    batches = loader(open_source(corrupted(tmp_path)).val, workers=workers)
    for _ in range(2):
        assert sorted(labels_of(batches)) == [0, 1, 2, 3, 4, 6, 6, 7, 8, 9, 10, 11]
    assert list(batches.bad) == [f"{tmp_path / 'a.rec'} record 5"]
    assert "a.rec record 5: not a readable image" in batches.bad[f"{tmp_path / 'a.rec'} record 5"]


@pytest.mark.parametrize("workers", [0, 1])
@pytest.mark.parametrize("train", [True, False])
def test_a_corrupt_jpeg_is_refused(tmp_path, workers, train):
    batches = loader(open_source(corrupted(tmp_path)).val, train=train, workers=workers, skip_bad=False)
    with pytest.raises(
        BadImageError, match=r"^\S*a.rec record 5: not a readable image .* Replace or remove it$"
    ):
        list(batches)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("resident", [None, Moves(1, True)])
def test_a_pass_from_a_batch_on(workers, resident):
    """The remainder of an epoch equals that of a whole pass: order, augmentation, erasing and noise."""
    transform = plain_transform(PLAIN) if resident else train_transform(PLAIN, "flip_crop")
    changes = {"random_erasing": 0.9, "workers": workers, "resident": resident}
    whole = loader(Numbered(22), transform=transform, **changes)
    whole.set_epoch(3)
    expected = list(whole)
    rest = loader(Numbered(22), transform=transform, **changes)
    for start in (2, 5, 0):
        rest.set_epoch(3, start)
        found = list(rest)
        assert len(rest) == 5 and len(found) == 5 - start
        for (images, labels), (others, names) in zip(found, expected[start:], strict=True):
            assert torch.equal(images, others) and torch.equal(labels, names)


def test_names_of_a_batch():
    batches = loader(Numbered(9))
    batches.set_epoch(1)
    for number, (_, labels) in enumerate(batches):
        assert batches.names(number) == [f"image {label}" for label in labels.tolist()]


@pytest.mark.filterwarnings(
    "ignore::pytest.PytestUnraisableExceptionWarning"
)  # one end of a socket stays open
def test_a_loader_process_that_is_killed():
    def killing() -> None:
        for _ in loader(Numbered(400), workers=1):
            for process in multiprocessing.active_children():
                process.kill()

    with pytest.raises(InputError, match=r"a data-loading worker ended .* possibly out of memory"):
        killing()


def test_evaluation_leaves_bad_images_out():
    batches = loader(Numbered(10, broken=(0, 5, 8, 9)), train=False, workers=0, max_bad=4)
    assert labels_of(batches) == [1, 2, 3, 4, 6, 7]
    assert batches.bad["image 5"] == "image 5: broken" and len(batches.bad) == 4


@pytest.mark.parametrize(
    "broken, max_bad, message",
    [
        ((1, 2, 3), 2, r"3 images cannot be read, expected at most 2 \(max_bad_images\). Last error: image"),
        (tuple(range(12)), 5, "images cannot be read, expected at most 5"),
        (
            (4,),
            0,
            r"1 images cannot be read, expected at most 0 \(max_bad_images\). Last error: image 4: broken",
        ),
    ],
)
def test_too_many_bad_images(broken, max_bad, message):
    with pytest.raises(InputError, match=message):
        list(loader(Numbered(12, broken), max_bad=max_bad))


def test_a_set_without_any_readable_image():
    with pytest.raises(InputError, match=r"none of the 6 images can be read\. Last error: image"):
        list(loader(Numbered(6, tuple(range(6))), max_bad=6))


@pytest.mark.parametrize(
    "count, expected", [(1, 1), (10, 1), (99, 9), (1_000, 100), (10_000, 100), (10_100, 101)]
)
def test_default_limit_of_bad_images(count, expected):
    assert loader(Numbered(count)).max_bad == expected


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"batch_size": 0}, "batch size: got 0, expected 1 or more"),
        ({"seed": -1}, "seed: got -1, expected 0 or more"),
        ({"workers": -1}, "number of workers: got -1, expected 0 or more"),
        ({"world_size": 9}, "number of images: got 8, expected 9 or more"),
    ],
)
def test_loader_errors(changes, message):
    with pytest.raises(InputError, match=message):
        loader(Numbered(8), **changes)


@pytest.mark.skipif(not PHOTOS.is_dir(), reason=f"needs the photos in {PHOTOS}")
def test_photos_in_batches():
    pre = dataclasses.replace(IMAGENET, input_size=64)
    transform = train_transform(pre, "mxnet")
    images, labels = next(iter(loader(open_source(str(PHOTOS)).train, 8, transform, pre)))
    assert images.shape == (8, 3, 64, 64) and len(set(labels.tolist())) == 8
    assert abs(float(images.mean())) < 1 and 0.5 < float(images.std()) < 2
