"""Steps on the device: normalization compared with torchvision, random erasing compared with timm."""

import random

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data.random_erasing import RandomErasing

from igcv.data import Finish
from igcv.data.erasing import draw_rectangles, erase
from igcv.data.preprocessing import CIFAR, IMAGENET, MXNET, Preprocessing, eval_transform, plain_transform
from igcv.errors import InputError

PLAIN = Preprocessing(16, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0), 1.0, "bilinear")
SIDE, DRAWS = 48, 16000


def noise_image(seed: int, *size: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), np.uint8))


@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("pre", [IMAGENET, CIFAR, MXNET])
def test_a_finished_batch_is_what_evaluation_makes_of_each_image(pre, channels_last):
    images = [noise_image(i, 300, 260) for i in range(3)]
    finished = Finish(pre, channels_last=channels_last)(
        torch.stack([plain_transform(pre)(i) for i in images])
    )
    assert torch.equal(finished, torch.stack([eval_transform(pre)(i) for i in images]))
    layout = torch.channels_last if channels_last else torch.contiguous_format
    assert finished.is_contiguous(memory_format=layout)


def test_erasing_follows_seed_epoch_and_image():
    """All processes and batches draw the same rectangles, but each process draws its own noise."""

    def erased(numbers: list[int], epoch: int = 0, rank: int = 0) -> torch.Tensor:
        finish = Finish(PLAIN, random_erasing=0.5).for_epoch(40, 7, epoch, rank)
        return finish(0, torch.zeros(len(numbers), 3, 16, 16, dtype=torch.uint8), torch.tensor(numbers))

    whole = erased(list(range(40)))
    assert 8 < sum(bool(image.any()) for image in whole) < 32
    backwards = erased(list(range(39, -1, -1)), rank=1).flip(0)
    assert torch.equal(whole != 0, backwards != 0) and not torch.equal(whole, backwards)
    assert torch.equal(erased([3, 3, 17]) != 0, whole[[3, 3, 17]] != 0)
    assert torch.equal(whole, erased(list(range(40))))
    assert not torch.equal(whole != 0, erased(list(range(40)), epoch=1) != 0)


@pytest.mark.parametrize("probability", [-0.1, 1.5, float("nan")])
def test_no_probability(probability):
    with pytest.raises(
        InputError, match=rf"random_erasing: got {probability}, expected a probability from 0 to 1"
    ):
        Finish(PLAIN, random_erasing=probability)


def timms_rectangles(probability: float) -> torch.Tensor:
    """Return top, left, height and width of timm's rectangles in DRAWS images, zeros without a rectangle."""
    random.seed(1), torch.manual_seed(1)
    eraser = RandomErasing(probability, mode="pixel", device="cpu")
    noisy = torch.stack([eraser(torch.zeros(1, SIDE, SIDE))[0] != 0 for _ in range(DRAWS)])
    (rows, columns), line = (noisy.any(2), noisy.any(1)), torch.arange(SIDE)
    top, left = (torch.where(hit, line, SIDE).amin(1) % SIDE for hit in (rows, columns))
    return torch.stack([top, left, rows.sum(1), columns.sum(1)], dim=1)


def distance(first: torch.Tensor, second: torch.Tensor) -> float:
    """Return the Kolmogorov-Smirnov statistic: the largest difference between two distribution functions."""
    values = torch.cat([first, second]).unique()
    shares = [torch.searchsorted(x.sort().values, values, right=True) / len(x) for x in (first, second)]
    return float((shares[0] - shares[1]).abs().max())


def test_rectangles_are_distributed_as_timms():
    theirs, ours = timms_rectangles(0.9), draw_rectangles(DRAWS, SIDE, 0.9, torch.Generator().manual_seed(1))
    assert abs(float((theirs[:, 2] > 0).double().mean() - (ours[:, 2] > 0).double().mean())) < 0.01
    theirs, ours = (r[r[:, 2] > 0].double() for r in (theirs, ours))
    for name, of in {
        "area": lambda r: r[:, 2] * r[:, 3],
        "aspect": lambda r: (r[:, 2] / r[:, 3]).log(),
        "height": lambda r: r[:, 2],
        "width": lambda r: r[:, 3],
        "top": lambda r: r[:, 0],
        "left": lambda r: r[:, 1],
        "free space used": lambda r: r[:, 0] / (SIDE - r[:, 2]),  # 0 at the top edge, 1 at the bottom
        "top and left": lambda r: r[:, 0] + r[:, 1],
    }.items():
        # Equal distributions stay below 1.63 * sqrt(2 / n) in 99 % of all draws; here n is about 14,400.
        assert distance(of(theirs), of(ours)) < 0.019, name


def test_erasing_fills_exactly_the_rectangles_with_normal_noise():
    rectangles = draw_rectangles(200, SIDE, 0.5, torch.Generator().manual_seed(0))
    images = torch.full((200, 3, SIDE, SIDE), 7.0).to(memory_format=torch.channels_last)
    erase(images, rectangles, torch.Generator().manual_seed(0))
    noise = []
    for image, (top, left, height, width) in zip(images, rectangles.tolist(), strict=True):
        inside = torch.zeros(SIDE, SIDE, dtype=torch.bool)
        inside[top : top + height, left : left + width] = True
        assert torch.equal((image != 7).all(0), inside) and torch.equal((image != 7).any(0), inside)
        noise.append(image[:, inside].flatten())
    drawn = torch.cat(noise)
    assert abs(float(drawn.mean())) < 0.01 and abs(float(drawn.std()) - 1) < 0.01
    assert distance(drawn[:20000], torch.randn(20000, generator=torch.Generator().manual_seed(5))) < 0.017


def test_a_rectangle_that_is_too_large_is_drawn_again():
    """At the first attempt, 0.7 % are too large; ten attempts nearly always find one that fits, as in timm."""
    rectangles = draw_rectangles(DRAWS, SIDE, 1.0, torch.Generator().manual_seed(0))
    assert rectangles[:, 2:].min() >= 1 and rectangles[:, 2:].max() == SIDE - 1
    assert (rectangles[:, :2] + rectangles[:, 2:]).max() == SIDE


def test_an_image_too_small_for_any_rectangle_stays_whole():
    assert not draw_rectangles(50, 1, 1.0, torch.Generator().manual_seed(0))[:, 2:].prod(1).any()
