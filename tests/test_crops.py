"""Random crops: pixels equal to torchvision's, and JPEGs decoded no larger than needed."""

import dataclasses
from io import BytesIO

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import v2

from igcv.data import AUGMENTS, BadImageError, crops, decode, train_transform
from igcv.data.crops import RandomResizedCrop, RandomScaledCrop, central_square, reduce
from igcv.data.preprocessing import IMAGENET, eval_transform, plain_transform

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
SMALL = dataclasses.replace(IMAGENET, input_size=32)


def scene(width: int, height: int, scale: int = 16) -> Image.Image:
    """Return smoothly enlarged noise, with colors that change over `scale` pixels."""
    shape = (height // scale + 1, width // scale + 1, 3)
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, shape, np.uint8))
    return noise.resize((width, height), Image.Resampling.BICUBIC)


def jpeg(image: Image.Image) -> bytes:
    file = BytesIO()
    image.save(file, "JPEG", quality=90)
    return file.getvalue()


def difference(a: Image.Image, b: Image.Image) -> np.ndarray:
    return np.abs(np.asarray(a, np.int16) - np.asarray(b, np.int16))


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(90, 60), (33, 121), (20, 16), (40, 32)])
def test_resizing_is_torchvisions(name, size):
    image = scene(*size)
    resize = v2.Resize(32, v2.InterpolationMode(name), antialias=True)
    for side in (32, 27):
        found = central_square(image, 32, side, Image.Resampling[name.upper()])
        np.testing.assert_array_equal(found, v2.CenterCrop(side)(resize(image)))


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(900, 60), (33, 1210), (20, 400), (1, 300), (400, 32)])
def test_of_a_thin_image_the_square_alone_is_computed(name, size, monkeypatch):
    """The pixels equal those of the whole resized image, except for corners rounded to float32."""
    image, resample = scene(*size), Image.Resampling[name.upper()]
    whole = central_square(image, 32, 27, resample)
    monkeypatch.setattr(crops, "MOST_RESIZED", 0)
    off = difference(central_square(image, 32, 27, resample), whole)
    assert (off.max() <= 2 and off.mean() < 0.2) or name == "nearest"
    if name == "nearest":  # another of two equally near neighbors may be chosen
        assert (off > 0).mean() < 0.05


@pytest.mark.parametrize("size", [(1, 2_000_000), (2_000_000, 3), (1, 1)])
@pytest.mark.parametrize("augment", AUGMENTS)
def test_thin_images_fit_into_memory(size, augment):
    """Resized as a whole, the first image would have 13 billion pixels."""
    image = Image.new("RGB", size, (10, 200, 90))
    image.paste((250, 0, 0), (0, 0, *(max(length // 3, 1) for length in size)))  # away from the middle
    seen = plain_transform(IMAGENET)(image)
    assert seen.shape == (3, 224, 224)
    assert train_transform(IMAGENET, augment)(image).shape == (3, 224, 224)
    if max(size) > 1:
        assert seen.flatten(1).unique(dim=1).flatten().tolist() == [10, 200, 90]


@pytest.mark.parametrize("name", INTERPOLATIONS)
@pytest.mark.parametrize("size", [(90, 60), (33, 120), (20, 16)])
def test_a_resized_crop_is_torchvisions(name, size):
    image = scene(*size)
    ours = RandomResizedCrop(32, Image.Resampling[name.upper()])
    theirs = v2.RandomResizedCrop(32, interpolation=v2.InterpolationMode(name), antialias=True)
    for seed in range(20):
        torch.manual_seed(seed)
        found = ours(image)
        torch.manual_seed(seed)
        off = difference(found, theirs(image))
        assert name not in ("nearest", "lanczos") or not off.any()
        assert off.mean() < 0.1 and (off > 1).mean() < 0.01  # torch's weights have 16 bits, Pillow's 22


@pytest.mark.parametrize("name", INTERPOLATIONS[1:])
@pytest.mark.parametrize("size", [(90, 60), (45, 120), (20, 16)])
def test_a_scaled_crop_is_that_of_the_resized_image(name, size):
    image, interpolation = scene(*size), v2.InterpolationMode(name)
    crop = RandomScaledCrop(0.533, 1.0, 32, Image.Resampling[name.upper()])
    for seed in range(20):
        torch.manual_seed(seed)
        found = crop(image)
        torch.manual_seed(seed)
        short = max(32, round(min(size) * (0.533 + (1 - 0.533) * torch.rand(()).item())))
        whole = v2.functional.resize(image, short, interpolation, antialias=True)
        left, top = (int(torch.randint(side - 32 + 1, ())) for side in whole.size)
        off = difference(found, whole.crop((left, top, left + 32, top + 32)))
        assert (
            off.max() <= 2 and off.mean() < 0.2
        )  # Pillow rounds corners to float32, and both passes to 8 bits


@pytest.mark.parametrize("factor, divisor", [(0.5, 1), (1.99, 1), (2, 2), (3.9, 2), (4, 4), (8, 8), (40, 8)])
def test_the_decoder_leaves_out_what_is_not_needed(factor, divisor):
    image = decode(jpeg(scene(321, 241)), "x")
    assert reduce(image, factor) == divisor
    assert np.asarray(image).shape == (-(-241 // divisor), -(-321 // divisor), 3)
    assert reduce(image, factor) == 1  # already decoded


def test_other_images_are_never_reduced():
    file = BytesIO()
    scene(64, 64).save(file, "PNG")
    encoded = [file.getvalue(), *(jpeg(scene(64, 64).convert(mode)) for mode in ("L", "CMYK"))]
    for image in [scene(64, 64), *(decode(one, "x") for one in encoded)]:
        assert reduce(image, 4) == 1 and image.size == (64, 64) and image.mode == "RGB"


@pytest.mark.parametrize("augment", ["shift", "flip_crop", "inception"])
def test_training_on_a_large_jpeg_sees_what_the_whole_one_shows(augment):
    encoded = jpeg(scene(1203, 901, 80))
    whole = decode(encoded, "x").copy()  # decoded, so reduce has no effect
    transform, reduced = train_transform(SMALL, augment), 0
    for seed in range(12):
        image = decode(encoded, "x")
        torch.manual_seed(seed)
        found = transform(image)
        torch.manual_seed(seed)
        expected = transform(whole)
        assert (
            found.float() - expected.float()
        ).abs().mean() < 1  # of 255: another filter and one more rounding
        reduced += image.size != whole.size
    assert reduced >= 10 and whole.size == (1203, 901)


@pytest.mark.parametrize("transform", [eval_transform(SMALL), plain_transform(SMALL)])
def test_evaluation_decodes_everything(transform):
    encoded = jpeg(scene(500, 400))
    image = decode(encoded, "x")
    assert torch.equal(transform(image), transform(Image.open(BytesIO(encoded)).convert("RGB")))
    assert image.size == (500, 400)


@pytest.mark.parametrize("augment", AUGMENTS)
def test_a_jpeg_that_is_cut_short_is_named(augment):
    encoded = jpeg(scene(500, 400))
    image = decode(encoded[: len(encoded) // 2], "half.jpg")
    with pytest.raises(
        BadImageError, match=r"^half.jpg: not a readable image \(.*truncated.*\), expected a JPEG"
    ):
        train_transform(SMALL, augment)(image)
