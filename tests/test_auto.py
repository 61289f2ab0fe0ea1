"""Training without a recipe: every open setting follows from data and device, and the time can be given."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

import igcv
from igcv.data import Finish, LoaderSettings, make_loader, plain_transform
from igcv.data.images import ArrayImages
from igcv.data.preprocessing import CIFAR
from igcv.errors import InputError
from igcv.training import Recipe, auto, load_recipe, read_metrics
from igcv.training.auto import Facts, choose, in_words
from igcv.training.budget import ended, fitted
from igcv.training.draft import Draft
from igcv.training.phases import default_folder, folder_name
from tests.conftest import Igcv

FEW = {
    "model": "igcv3_w_010",
    "input_size": 16,
    "epochs": 2,
    "batch_size": 8,
    "workers": 0,
    "precision": "float32",
}


def values(facts: Facts, **given: Any) -> dict[str, Any]:
    return {key: choice.value for key, choice in choose(facts, given).items()} | given


@pytest.mark.parametrize("images", [2, 30, 48, 245, 2400, 50_000, 300_000])
@pytest.mark.parametrize("gpu", [False, True])
def test_every_size_of_set_gets_a_recipe(images: int, gpu: bool) -> None:
    chosen = values(Facts(images, 500, False, gpu))
    recipe = Draft({"data": "folder:photos"}).filled(chosen)
    steps = -(-images // recipe.batch_size)
    assert 1 <= recipe.batch_size <= 128 and (steps >= 12 or recipe.batch_size == 4)
    assert recipe.lr == pytest.approx(0.05 * recipe.batch_size / 32)
    assert 30 <= recipe.epochs <= 150 and recipe.warmup_epochs <= recipe.epochs / 10
    # The moving average is none, or much shorter than the training.
    assert recipe.ema_decay == 0 or 1 / (1 - recipe.ema_decay) <= 1.01 * recipe.epochs * steps / 10


def test_rules_by_hand() -> None:
    photos = values(Facts(2400, 375, False, False))
    assert (photos["model"], photos["input_size"], photos["augment"]) == ("igcv3_d_050", 64, "inception")
    assert (photos["batch_size"], photos["epochs"], photos["lr"]) == (64, 50, 0.1)
    assert photos["ema_decay"] == pytest.approx(1 - 15 / (50 * 37), abs=1e-5)
    digits = values(Facts(1438, 8, True, False))
    assert (digits["input_size"], digits["preprocessing"], digits["augment"]) == (8, "cifar", "flip_crop")
    assert values(Facts(2400, 375, False, True))["input_size"] == 224
    assert values(Facts(10**6, 375, False, True, processes=3))["batch_size"] % 3 == 0


def test_rules_follow_what_is_given() -> None:
    chosen = values(Facts(2400, 375, False, False), batch_size=16, epochs=10)
    assert (chosen["lr"], chosen["warmup_epochs"]) == (0.025, 1.0)
    assert "batch_size" not in choose(Facts(2400, 375, False, False), {"batch_size": 16})
    assert values(Facts(2400, 375, False, False), max_minutes=10)["epochs"] == 38  # 60 * 10 * 150 / 2400


def test_every_choice_has_a_reason() -> None:
    choices = choose(Facts(2400, 375, False, False), {})
    assert all(choice.reason for choice in choices.values())
    assert "  batch_size      64  (37 steps in an epoch of 2,400 images)" in in_words(choices)
    assert set(choices) <= set(vars(Recipe()))


def test_the_typical_side_of_photos() -> None:
    images = [Image.new("RGB", size) for size in ((90, 30), (50, 40), (60, 200))]
    pictures: Any = [(image, 0) for image in images]
    assert auto.typical_side(pictures) == 40


def test_one_command_is_all(
    digit_folder: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a recipe or a run folder; typed twice it shows the result again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(digit_folder)
    command = ("train", "--data", "folder:photos", "--device", "cpu", "epochs=2", "model=igcv3_w_010")
    first = igcv_command(*command)
    assert first.status == 0, first.err
    assert (
        "chosen for these images and this machine" in first.out
        and "steps in an epoch of 24 images" in first.out
    )
    stored = load_recipe(tmp_path / "runs" / "photos" / "recipe.toml")
    assert (stored.epochs, stored.model, stored.batch_size, stored.drop_last) == (2, "igcv3_w_010", 4, False)
    again = igcv_command(*command)
    assert again.status == 0 and "runs/photos holds this training. Longer: igcv train --resume" in again.out
    assert again.out.count("best top-1") == 1
    resumed = igcv_command("train", "--resume", "--out", "runs/photos", "--device", "cpu")
    assert resumed.status == 0 and "holds this training" in resumed.out
    longer = igcv_command("train", "--resume", "--out", "runs/photos", "--device", "cpu", "epochs=3")
    assert longer.status == 0 and "epoch 3/3" in longer.out, longer.err
    other = igcv_command(*command, "lr=0.3")
    assert other.status == 2 and "already holds a run" in other.err


def test_given_settings_are_kept(digit_folder: Path, tmp_path: Path) -> None:
    run = igcv.train(out=tmp_path / "run", data=str(digit_folder), device="cpu", quiet=True, **FEW)
    stored = load_recipe(run.folder / "recipe.toml")
    assert all(getattr(stored, key) == value for key, value in FEW.items())
    with pytest.raises(InputError, match="unknown recipe key 'learning_rat'"):
        igcv.train(data=str(digit_folder), learning_rat=0.1)


def test_run_folders_tell_the_data() -> None:
    assert default_folder(Draft({"data": "folder:/home/me/My Photos"})) == Path("runs/my_photos")
    assert folder_name("tinyimagenet:data/tiny-imagenet-200") == "tiny_imagenet_200"


@pytest.mark.parametrize(
    ("images", "batch_size", "drop_last", "batches"),
    [
        (10, 4, True, [4, 4]),
        (10, 4, False, [4, 4, 2]),
        (9, 4, False, [4, 4]),
        (3, 4, True, [3]),
        (1, 4, False, [1]),
    ],
)
def test_the_last_batch(images: int, batch_size: int, drop_last: bool, batches: list[int]) -> None:
    """One image alone is left out, unless there is no other."""
    pixels = ArrayImages(np.zeros((images, 32, 32, 3), np.uint8), np.arange(images), "test")
    settings = LoaderSettings(batch_size=batch_size, train=True, drop_last=drop_last, skip_bad=True)
    loader = make_loader(pixels, plain_transform(CIFAR), Finish(CIFAR), settings)
    assert [len(labels) for _, labels in loader] == batches and len(loader) == len(batches)


def rows(*seconds: float, top1: tuple[float, ...] = ()) -> list[dict[str, Any]]:
    found = [{"epoch": i + 1, "epoch_time_s": s} for i, s in enumerate(seconds)]
    return [row | {"val_top1": value} for row, value in zip(found, top1, strict=True)] if top1 else found


@pytest.mark.parametrize(
    ("epochs", "history", "expected"),
    [
        (100, rows(6.0), 10),  # a minute holds ten epochs of six seconds
        (3, rows(6.0), 10),  # also more than were guessed
        (10, rows(6.0, 12.0), 6),  # slower: 42 seconds are left, and 9 seconds an epoch
        (10, rows(6.0, 2.0), 10),  # faster: no more, as the rate has followed the ten
        (10, rows(70.0), 1),  # one epoch takes longer than all the time
    ],
)
def test_epochs_are_fitted_to_the_minutes(epochs: int, history: list[dict[str, Any]], expected: int) -> None:
    recipe = Recipe(max_minutes=1.0, epochs=epochs, warmup_epochs=2.0)
    found = fitted(recipe, history)
    assert found.epochs == expected and found.warmup_epochs <= expected / 4
    assert fitted(Recipe(epochs=epochs), history).epochs == epochs


def test_a_training_ends_with_its_time(digit_folder: Path, tmp_path: Path) -> None:
    settings = FEW | {"epochs": 500, "max_minutes": 0.05}
    run = igcv.train(out=tmp_path / "run", data=str(digit_folder), device="cpu", quiet=True, **settings)
    history = read_metrics(run.folder)
    assert 1 <= len(history) < 500 and run.summary["epochs"] == len(history)
    assert load_recipe(run.folder / "recipe.toml").epochs == len(history)
    assert json.loads((run.folder / "summary.json").read_text())["time_s"] < 30


def test_patience_by_hand() -> None:
    recipe = Recipe(patience=2, epochs=9)
    state: Any = SimpleNamespace(epoch=3)
    assert not ended(state, recipe, rows(1, 1, 1, top1=(10.0, 30.0, 20.0)))
    assert ended(state, recipe, rows(1, 1, 1, top1=(30.0, 30.0, 20.0)))
    assert not ended(state, Recipe(epochs=9), rows(1, 1, 1, top1=(30.0, 20.0, 20.0)))
    assert not ended(state, recipe, [])
    assert ended(SimpleNamespace(epoch=9), Recipe(epochs=9), [])  # type: ignore[arg-type]


def test_patience_ends_a_run(digit_folder: Path, tmp_path: Path) -> None:
    settings = FEW | {"epochs": 50, "patience": 1, "lr": 0.0}
    run = igcv.train(out=tmp_path / "run", data=str(digit_folder), device="cpu", quiet=True, **settings)
    assert run.summary["epochs"] == len(read_metrics(run.folder)) < 50
