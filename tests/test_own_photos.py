"""Tests of the default settings: small versions of typical photo sets are learned with one command."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image, ImageDraw

import igcv
from igcv.training import load_recipe
from tests.conftest import Igcv

SHAPES = ("circle", "square", "stripes")
# A small network and image, because those of the papers take minutes. igcv chooses the other settings.
SMALL: dict[str, Any] = {
    "model": "igcv3_w_025",
    "input_size": 32,
    "init_from": "none",
    "precision": "float32",
}


def photo(shape: str, rng: np.random.Generator) -> Image.Image:
    """Return a shape of random color, place and size on a noisy background."""
    width, height = (int(side) for side in rng.integers(40, 80, 2))
    background = rng.integers(0, 120, 3) + rng.integers(0, 40, (height, width, 3))
    image = Image.fromarray(background.astype(np.uint8))
    color = tuple(int(level) for level in rng.integers(150, 256, 3))
    draw, size = ImageDraw.Draw(image), int(rng.integers(18, 30))
    left, top = int(rng.integers(0, width - size)), int(rng.integers(0, height - size))
    if shape == "stripes":
        for x in range(0, width, 8):
            draw.rectangle((x, 0, x + 3, height), fill=color)
    elif shape == "circle":
        draw.ellipse((left, top, left + size, top + size), fill=color)
    else:
        draw.rectangle((left, top, left + size, top + size), fill=color)
    return image


def photos(folder: Path, counts: dict[str, int]) -> Path:
    """Write a folder of photos per class, with the given counts."""
    rng = np.random.default_rng(0)
    for shape, count in counts.items():
        (folder / shape).mkdir(parents=True)
        for i in range(count):
            photo(shape, rng).save(folder / shape / f"{i}.jpg", quality=95)
    return folder


@pytest.mark.parametrize(("each", "epochs", "least"), [(10, 40, 50.0), (20, 30, 70.0), (100, 10, 80.0)])
def test_a_few_photos_are_learned(each: int, epochs: int, least: float, tmp_path: Path) -> None:
    """With 30, 60 and 300 photos, top-1 exceeds the share of the largest class, a third."""
    folder = photos(tmp_path / "photos", dict.fromkeys(SHAPES, each))
    run = igcv.train(
        data=f"folder:{folder}", out=tmp_path / "run", epochs=epochs, device="cpu", quiet=True, **SMALL
    )
    assert run.summary["no_better_than"] is None
    assert run.summary["best_top1"] >= least
    recipe = load_recipe(run.folder / "recipe.toml")
    assert not recipe.drop_last and recipe.batch_size <= each


def test_unequal_classes_are_told(tmp_path: Path, igcv_command: Igcv) -> None:
    """The command learns the classes or reports a constant prediction; it prints balanced accuracy next to top-1."""
    folder = photos(tmp_path / "photos", {"circle": 90, "square": 20, "stripes": 10})
    settings = [f"{key}={value}" for key, value in SMALL.items()]
    outcome = igcv_command(
        *("train", "--data", f"folder:{folder}", "--out", tmp_path / "run", "--device", "cpu", "epochs=20"),
        *settings,
    )
    assert outcome.status == 0, outcome.err
    run = igcv.train(
        data=f"folder:{folder}", out=tmp_path / "run", device="cpu", quiet=True, epochs=20, **SMALL
    )
    assert run.was_there
    told = "no better than" in outcome.out
    assert told == (run.summary["no_better_than"] is not None)
    assert "balanced accuracy" in outcome.out


def test_a_hard_recipe_earns_a_caution(tmp_path: Path, igcv_command: Igcv) -> None:
    """The batches of 128 in `cifar_fast.toml` give one step per epoch of 48 photos."""
    folder = photos(tmp_path / "photos", dict.fromkeys(SHAPES, 20))
    outcome = igcv_command(
        *("train", "recipes/cifar_fast.toml", "--data", f"folder:{folder}", "--out", tmp_path / "run"),
        *("--device", "cpu", "epochs=3", "warmup_epochs=1", "model=igcv3_w_010", "input_size=16"),
    )
    assert outcome.status == 0, outcome.err
    assert "caution: batch_size = 128 gives 1 step per epoch" in outcome.out
    assert "caution: the EMA spans 1,000 of 3 steps" in outcome.out
    run = igcv_command(
        *("train", "recipes/cifar_fast.toml", "--data", f"folder:{folder}", "--out", tmp_path / "other"),
        *(
            "--device",
            "cpu",
            "epochs=1",
            "warmup_epochs=0",
            "batch_size=32",
            "model=igcv3_w_010",
            "input_size=16",
        ),
    )
    assert "images (its incomplete last batch)" in run.out
