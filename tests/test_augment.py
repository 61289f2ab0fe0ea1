"""Preprocessing parameters, and transforms: their pixels and their distribution."""

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from PIL import Image

from igcv.data import AUGMENTS, train_transform
from igcv.data.preprocessing import CIFAR, IMAGENET, MXNET, Preprocessing, eval_transform, plain_transform
from igcv.errors import InputError

PLAIN = Preprocessing(8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, "bilinear")


def noise_image(*size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.mark.parametrize("pre", [IMAGENET, CIFAR, MXNET, PLAIN])
def test_preprocessing_survives_json(pre):
    assert Preprocessing.from_dict(json.loads(json.dumps(pre.to_dict()))) == pre


@pytest.mark.parametrize(
    "change, message",
    [
        ({"input_size": 0}, "input_size: got 0, expected an integer from 1"),
        ({"input_size": 224.0}, "input_size: got 224.0, expected an integer"),
        ({"mean": [0.5]}, r"mean: got \(0.5,\), expected three numbers, for pixels from 0 to 1"),
        ({"std": [1, 0, 1]}, r"std: got \(1, 0, 1\), expected three numbers above 0"),
        ({"std": "abc"}, "std: got 'abc', expected three numbers"),
        ({"mean": [0, 0, float("nan")]}, r"mean: got \(0, 0, nan\), expected three numbers"),
        ({"crop": 1.2}, "crop: got 1.2, expected a number from 0.1 to 1"),
        ({"crop": True}, "crop: got True, expected a number"),
        ({"interpolation": "bicubik"}, r"unknown interpolation 'bicubik'; did you mean 'bicubic'\?"),
        ({"inputsize": 3}, r"unknown preprocessing key 'inputsize'; did you mean 'input_size'\?"),
    ],
)
def test_preprocessing_errors(change, message):
    with pytest.raises(InputError, match=message):
        Preprocessing.from_dict(IMAGENET.to_dict() | change)


def test_incomplete_preprocessing():
    with pytest.raises(InputError, match="preprocessing: missing std, crop, expected input_size, mean, std,"):
        Preprocessing.from_dict({"input_size": 1, "mean": [0, 0, 0], "interpolation": "nearest"})
    with pytest.raises(InputError, match="preprocessing: got 3, expected a table of input_size, mean"):
        Preprocessing.from_dict(3)


def test_evaluation_of_an_image_of_the_right_size_only_normalizes():
    image = noise_image(32, 32)
    pixels = np.asarray(image, np.float32).transpose(2, 0, 1) / 255
    expected = (pixels - np.float32(CIFAR.mean)[:, None, None]) / np.float32(CIFAR.std)[:, None, None]
    result = eval_transform(CIFAR)(image)
    assert type(result) is torch.Tensor and result.dtype == torch.float32
    np.testing.assert_allclose(result, expected, atol=1e-5)


def test_mxnet_input_is_0_to_255_less_the_mean():
    result = eval_transform(MXNET)(Image.new("RGB", (256, 256), (200, 100, 0)))
    np.testing.assert_allclose(result[:, 5, 5], [200 - 123.68, 100 - 116.779, -103.939], atol=1e-3)


@pytest.mark.parametrize("size", [(256, 256), (400, 256), (256, 400)])
def test_evaluation_crops_the_center(size):
    image = noise_image(*size)
    left, top = (size[0] - 224) // 2, (size[1] - 224) // 2
    plain = dataclasses.replace(IMAGENET, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))  # resizes to 256 first
    expected = np.asarray(image.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1) / 255
    np.testing.assert_allclose(eval_transform(plain)(image), expected, atol=1e-6)


@pytest.mark.parametrize("augment", AUGMENTS)
@pytest.mark.parametrize("size", [(8, 8), (5, 20), (60, 41)])
def test_every_augmentation_gives_the_input_size(augment, size):
    result = train_transform(PLAIN, augment, "rand-m9-n2-mstd0.5")(noise_image(*size))
    assert type(result) is torch.Tensor and result.shape == (3, 8, 8) and result.dtype == torch.uint8


def test_no_augmentation_is_the_evaluation():
    image = noise_image(50, 40)
    assert torch.equal(train_transform(IMAGENET, "none")(image), plain_transform(IMAGENET)(image))


def columns(augment: str, draws: int = 300) -> list[list[int]]:
    """Return the middle row of draws from an image whose columns have the values 1 to 8."""
    ramp = np.repeat(np.arange(1, 9, dtype=np.uint8)[None, :, None], 8, axis=0).repeat(3, axis=2)
    transform, image = train_transform(PLAIN, augment), Image.fromarray(ramp)
    torch.manual_seed(0)
    return [transform(image)[0, 4].tolist() for _ in range(draws)]


def test_shift_moves_by_an_eighth_and_never_mirrors():
    rows = columns("shift")
    shifts = [[0, 1, 2, 3, 4, 5, 6, 7], [1, 2, 3, 4, 5, 6, 7, 8], [2, 3, 4, 5, 6, 7, 8, 0]]
    counts = [rows.count(shift) for shift in shifts]
    assert sum(counts) == 300 and min(counts) > 70


def test_flip_crop_mirrors_half_of_the_images():
    rows = columns("flip_crop")
    mirrored = sum(row[2] > row[5] for row in rows)
    assert 115 < mirrored < 185 and len({tuple(row) for row in rows}) == 6


def test_mxnet_scales_mirrors_and_shifts_colors():
    torch.manual_seed(0)
    pre = dataclasses.replace(PLAIN, input_size=64)
    transform = train_transform(pre, "mxnet")
    gray = torch.stack([transform(Image.new("RGB", (128, 128), (128, 128, 128))) for _ in range(60)])
    assert 128 * 0.80 - 3 < gray.min() < 110 and 146 < gray.max() < 128 * 1.2 + 3
    ramp = np.linspace(0, 255, 120, dtype=np.uint8)[None, :, None].repeat(120, axis=0).repeat(3, axis=2)
    spans = [int(t.amax() - t.amin()) / 255 for t in (transform(Image.fromarray(ramp)) for _ in range(60))]
    assert min(spans) < 0.55 and max(spans) > 0.8  # 64 of 120 pixels at scale 1, all 64 of 64 at 0.533


def test_randaugment_changes_images():
    random.seed(0)
    transform, image = train_transform(CIFAR, "none", "rand-m9-n2-mstd0.5"), noise_image(32, 32)
    plain = plain_transform(CIFAR)(image)
    assert sum(not torch.equal(transform(image), plain) for _ in range(40)) > 15


@pytest.mark.parametrize(
    "arguments, message",
    [
        (("flipcrop",), r"unknown augmentation 'flipcrop'; did you mean 'flip_crop'\?"),
        (("none", "rnd-m9"), "randaugment: got 'rnd-m9', expected 'rand' and any of -m9 -n2"),
        (("none", "rand-m9-n2-foo"), "randaugment: got 'rand-m9-n2-foo', expected.*Leave it empty"),
    ],
)
def test_train_transform_errors(arguments, message):
    with pytest.raises(InputError, match=message):
        train_transform(CIFAR, *arguments)
