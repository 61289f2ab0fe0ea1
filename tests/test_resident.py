"""Tests of resident images: augmented batches equal those of torchvision, in the order of other loaders."""

import dataclasses
from itertools import chain

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from igcv.data import BATCHED, BadImageError, Finish, LoaderSettings, Moves, make_loader, train_transform
from igcv.data.images import ArrayImages
from igcv.data.preprocessing import Preprocessing, plain_transform
from igcv.data.resident import cut, draw_moves
from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.training import load_recipe
from igcv.training.headline import whereabouts
from igcv.training.job import resolve
from igcv.training.parts import make_loaders

PRE = Preprocessing(16, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), 0.8, "bilinear")
CPU = Process(torch.device("cpu"))


class Pictures(ArrayImages):
    """Noise images of 24 x 20 pixels, labeled by number; images in `broken` are unreadable. Counts decoded images."""

    def __init__(self, count: int, broken: tuple[int, ...] = ()) -> None:
        pixels = np.random.default_rng(0).integers(0, 256, (count, 20, 24, 3), np.uint8)
        super().__init__(pixels, np.arange(count), "noise")
        self.broken, self.decoded = broken, 0

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        self.decoded += 1
        if i in self.broken:
            raise BadImageError(f"image {i}: broken")
        return super().__getitem__(i)


def loader(images, batch_size=4, resident=BATCHED["none"], random_erasing=0.0, **changes):
    finish = Finish(PRE, random_erasing=random_erasing)
    settings = LoaderSettings(
        batch_size=batch_size, resident=resident, **{"train": True, "skip_bad": True} | changes
    )
    return make_loader(images, plain_transform(PRE), finish, settings)


def same(first, second) -> bool:
    """Return whether two loaders give the same batches."""
    pairs = list(zip(first, second, strict=True))
    return all(torch.equal(a, b) for pair in pairs for a, b in zip(*pair, strict=True))


def labels_of(batches) -> list[int]:
    return [int(label) for _, labels in batches for label in labels]


@pytest.mark.parametrize("side", [5, 8, 32])
@pytest.mark.parametrize("moves", BATCHED.values(), ids=BATCHED)
def test_a_batch_is_padded_cropped_and_mirrored_as_by_torchvision(moves: Moves, side: int) -> None:
    rng = torch.Generator().manual_seed(0)
    pixels = torch.randint(1, 256, (40, side, side, 3), dtype=torch.uint8, generator=rng)
    place, drawn = torch.randint(40, (30,), generator=rng), draw_moves(30, moves, side, rng)
    images = cut(pixels, place, drawn)
    assert images.is_contiguous(memory_format=torch.channels_last)
    far = side // 8 * moves.eighths
    for image, i, (down, right, mirrored) in zip(images, place, drawn.tolist(), strict=True):
        padded = v2.functional.pad(pixels[i].permute(2, 0, 1), [far] * 4)
        expected = v2.functional.crop(padded, far + down, far + right, side, side)
        assert torch.equal(image, v2.functional.horizontal_flip(expected) if mirrored else expected)
    if moves.mirror and far:
        assert len(drawn.unique(dim=0)) > 10


@pytest.mark.parametrize("augment", BATCHED)
def test_images_are_moved_as_often_as_one_at_a_time(augment: str) -> None:
    """Chi-square test of the frequency of each possible result for one image of 16 x 16 pixels."""
    image, draws = Image.fromarray(np.random.default_rng(0).integers(0, 256, (16, 16, 3), np.uint8)), 3000
    pre = dataclasses.replace(PRE, crop=1.0)
    torch.manual_seed(0)
    alone = [train_transform(pre, augment)(image).numpy().tobytes() for _ in range(draws)]
    moves = draw_moves(draws, BATCHED[augment], 16, torch.Generator().manual_seed(0))
    batch = cut(
        plain_transform(pre)(image).permute(1, 2, 0)[None], torch.zeros(draws, dtype=torch.int64), moves
    )
    together = [x.contiguous().numpy().tobytes() for x in batch]
    outcomes = set(alone) | set(together)
    assert len(outcomes) == {"none": 1, "shift": 25, "flip_crop": 50}[augment]
    expected = draws / len(outcomes)
    for drawn in (alone, together):
        chi_square = sum((drawn.count(outcome) - expected) ** 2 / expected for outcome in outcomes)
        assert chi_square < {"none": 1, "shift": 43, "flip_crop": 75}[augment]  # 99 % for 24 and 49


@pytest.mark.parametrize("world_size", [1, 2, 3])
@pytest.mark.parametrize("broken", [(), (0, 6, 7, 24)])
def test_evaluation_gives_the_tensors_of_images_one_at_a_time(world_size, broken) -> None:
    for rank in range(world_size):
        places = {"train": False, "rank": rank, "world_size": world_size, "max_bad": 4}
        held = loader(Pictures(25, broken), 4, BATCHED["flip_crop"], **places)
        plain = loader(Pictures(25, broken), 4, None, **places)
        assert same(held, plain) and same(held, plain) and len(held) == len(plain)
        assert held.bad == plain.bad


@pytest.mark.parametrize("count, world_size", [(26, 1), (26, 2), (26, 3), (7, 2), (3, 1)])
def test_training_has_the_order_of_other_loaders(count: int, world_size: int) -> None:
    seen = []
    for rank in range(world_size):
        places = {"rank": rank, "world_size": world_size}
        held, plain = loader(Pictures(count), **places), loader(Pictures(count), 4, None, **places)
        for epoch in (0, 1):
            held.set_epoch(epoch), plain.set_epoch(epoch)
            assert same(held, plain) and len(held) == len(plain) == len(list(held))
        seen += labels_of(held)
    assert len(set(seen)) == len(seen)


def by_label(batches) -> dict[int, torch.Tensor]:
    return {
        int(label): image for images, labels in batches for image, label in zip(images, labels, strict=True)
    }


@pytest.mark.parametrize("world_size", [2, 3])
def test_any_number_of_processes_trains_on_the_same_images(world_size: int) -> None:
    alone = by_label(loader(Pictures(24), 2, BATCHED["flip_crop"]))
    parts = [
        by_label(loader(Pictures(24), 2, BATCHED["flip_crop"], rank=r, world_size=world_size))
        for r in range(world_size)
    ]
    assert sorted(chain(*parts)) == sorted(alone) == list(range(24))
    assert all(torch.equal(image, alone[label]) for part in parts for label, image in part.items())


def test_a_resumed_run_repeats_an_epoch_and_no_other() -> None:
    def epoch(batches, number: int) -> dict[int, torch.Tensor]:
        batches.set_epoch(number)
        return by_label(batches)

    def fresh(**changes):
        return loader(Pictures(12), 4, BATCHED["flip_crop"], 0.5, **changes)

    run = fresh()
    first, second = epoch(run, 0), epoch(run, 1)
    again = epoch(fresh(), 1)
    assert all(torch.equal(second[label], again[label]) for label in range(12))
    for other in (first, epoch(fresh(seed=1), 1)):
        assert sum(torch.equal(second[label], other[label]) for label in range(12)) < 4


@pytest.mark.parametrize("workers", [0, 2])
def test_images_are_decoded_once(workers: int) -> None:
    images = Pictures(300)
    batches = loader(images, workers=workers)
    assert sorted(labels_of(batches)) == sorted(labels_of(batches)) == list(range(300))
    assert images.decoded == (0 if workers else 300)  # worker processes have counters of their own


def test_training_replaces_bad_images_by_the_next() -> None:
    broken = (0, 4, 5, 11)
    held, plain = (
        loader(Pictures(12, broken), 4, resident, max_bad=4) for resident in (BATCHED["none"], None)
    )
    for _ in range(2):
        assert same(held, plain)
        assert sorted(labels_of(held)) == [1, 1, 1, 2, 3, 6, 6, 6, 7, 8, 9, 10]  # 11 and 0 are replaced by 1
    assert held.bad == plain.bad == {f"noise image {i}": f"image {i}: broken" for i in broken}


@pytest.mark.parametrize(
    "broken, changes, message",
    [
        ((3,), {"skip_bad": False}, "^image 3: broken$"),
        (
            (1, 2, 3),
            {"max_bad": 2},
            "3 images cannot be read, expected at most 2 \\(max_bad_images\\). Last error: image 3: broken",
        ),
        (
            tuple(range(12)),
            {"max_bad": 12},
            "none of the 12 images can be read. Last error: image 11: broken",
        ),
    ],
)
@pytest.mark.parametrize("train", [True, False])
def test_bad_images_that_are_too_many(broken, changes, message, train) -> None:
    batches = loader(Pictures(12, broken), train=train, **changes)
    for _ in range(2):
        with pytest.raises(InputError, match=message):
            list(batches)


def resident(data: object, *settings: str) -> str:
    """Return the resolved value of a recipe's `resident`."""
    return resolve(load_recipe(None, [f"data={data}", *settings]), CPU).recipe.resident


def test_images_become_resident_where_that_is_possible(digit_folder, tmp_path, monkeypatch) -> None:
    assert resident("digits", "augment=shift") == resident(digit_folder) == "on"
    assert resident("digits", "resident=off") == "off"
    assert resident("digits", "augment=inception") == resident("digits", "randaugment=rand-m9") == "off"
    for i, size in enumerate([(40, 30), (30, 40), (20, 20), (50, 10)]):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.new("RGB", size).save(tmp_path / f"class{i % 2}" / f"{i}.png")
    assert resident(tmp_path) == "off"  # photos: every epoch has new crops of larger images
    assert resident(tmp_path, "resident=on", "input_size=32") == "on"
    monkeypatch.setattr("igcv.training.job.RESIDENT_BYTES", 3 * 16**2 * 34 - 1)
    assert resident(digit_folder, "input_size=16") == "off"
    monkeypatch.setattr("igcv.training.job.RESIDENT_BYTES", 3 * 16**2 * 34)
    assert resident(digit_folder, "input_size=16") == "on"


@pytest.mark.parametrize(
    "setting, message",
    [
        (
            "augment=mxnet",
            r"resident = on, but augment = mxnet .*\. Give augment=none or shift or flip_crop, or ",
        ),
        (
            "randaugment=rand-m9",
            "resident = on, but randaugment = rand-m9 works on single images. Omit it",
        ),
    ],
)
def test_what_cannot_be_resident(setting: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        resident("digits", "resident=on", setting)


@pytest.mark.parametrize("where", ["on", "off"])
@pytest.mark.parametrize("layout", ["true", "false"])
def test_batches_have_the_layout_of_the_recipe(where: str, layout: str) -> None:
    settings = ["data=digits", "input_size=16", "random_erasing=0.5", f"resident={where}"]
    for batches in make_loaders(resolve(load_recipe(None, [*settings, f"channels_last={layout}"]), CPU)):
        assert batches is not None
        images, labels = next(iter(batches))
        assert (images.dtype, labels.dtype) == (torch.float32, torch.int64)
        assert images.is_contiguous(memory_format=torch.channels_last) == (layout == "true")
        assert images.is_contiguous() == (layout == "false")


def test_where_the_images_are() -> None:
    settings = ["data=digits", "input_size=16"]
    lines = [
        whereabouts(resolve(load_recipe(None, [*settings, f"resident={r}"]), CPU)) for r in ("auto", "off")
    ]
    assert lines[0] == "images: decoded once, then cached in memory (1.3 MiB)"
    assert lines[1] == "images: decoded in every epoch, workers = 0"
