"""Tests of training without a recipe: settings chosen from data and device, and time limits."""

import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import igcv
from igcv.data import Finish, LoaderSettings, make_loader, plain_transform
from igcv.data.images import ArrayImages
from igcv.data.preprocessing import CIFAR, IMAGENET, MXNET
from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.training import Recipe, load_recipe, pace, read_metrics
from igcv.training.auto import Choice, choose, in_words
from igcv.training.budget import ended, fitted
from igcv.training.draft import Draft
from igcv.training.facts import Facts, start_for, start_model, typical_side
from igcv.training.job import resolve, with_epochs
from igcv.training.pace import Pace, fitting
from igcv.training.phases import default_folder
from igcv.weights import load_weights
from igcv.weights.card import Card
from tests.conftest import Igcv

FEW = {
    "model": "igcv3_w_010",
    "input_size": 16,
    "epochs": 2,
    "batch_size": 8,
    "workers": 0,
    "precision": "float32",
}
SET = [f"{key}={value}" for key, value in FEW.items()]


def values(facts: Facts, **given: Any) -> dict[str, Any]:
    return {key: choice.value for key, choice in choose(facts, given).items()} | given


@pytest.mark.parametrize("images", [2, 30, 48, 245, 2400, 50_000, 300_000])
@pytest.mark.parametrize("gpu", [False, True])
def test_every_size_of_set_gets_a_recipe(images: int, gpu: bool) -> None:
    chosen = values(Facts(images, 500, False, gpu))
    recipe = Draft({"data": "folder:photos"}).filled(chosen)
    steps = -(-images // recipe.batch_size)
    assert 1 <= recipe.batch_size <= 128 and (steps >= recipe.batch_size / 2 or recipe.batch_size == 4)
    assert recipe.lr == pytest.approx(0.05 * recipe.batch_size / 32)
    assert 30 <= recipe.epochs <= 300 and recipe.warmup_epochs <= recipe.epochs / 10
    # There is no EMA, or its span is much shorter than the training.
    assert recipe.ema_decay == 0 or 1 / (1 - recipe.ema_decay) <= 1.01 * recipe.epochs * steps / 10


def test_rules_by_hand() -> None:
    photos = values(Facts(2400, 375, False, False))
    assert (photos["model"], photos["input_size"], photos["augment"]) == ("igcv3_d_p50", 64, "inception")
    assert (photos["batch_size"], photos["epochs"], photos["lr"]) == (64, 100, 0.1)
    assert photos["ema_decay"] == pytest.approx(1 - 15 / (100 * 37), abs=1e-5)
    assert (photos["progressive_sizes"], photos["progressive_epochs"]) == ((48,), (50,))
    digits = values(Facts(1438, 8, True, False))
    assert "progressive_sizes" not in digits and "progressive_sizes" not in values(
        Facts(2400, 375, False, True)
    )
    assert (digits["input_size"], digits["preprocessing"], digits["augment"]) == (8, "cifar", "flip_crop")
    assert values(Facts(2400, 375, False, True))["input_size"] == 224
    assert values(Facts(10**6, 375, False, True, processes=3))["batch_size"] % 3 == 0


def test_rules_follow_what_is_given() -> None:
    chosen = values(Facts(2400, 375, False, False), batch_size=16, epochs=10)
    assert (chosen["lr"], chosen["warmup_epochs"]) == (0.025, 1.0)
    assert "batch_size" not in choose(Facts(2400, 375, False, False), {"batch_size": 16})
    assert values(Facts(2400, 375, False, False), max_minutes=10)["epochs"] == 38  # 60 * 10 * 150 / 2400


def start_card(**changes: Any) -> Card:
    usual: dict[str, Any] = {"model": "igcv3_d_p50", "num_classes": 200, "input_size": 64}
    return Card(
        **usual | {"strides": (1, 1, 2, 2, 2, 1, 1, 1), "preprocessing": IMAGENET.to_dict()} | changes
    )


def test_rules_of_fine_tuning() -> None:
    facts = Facts(2400, 375, False, False, start=start_card(), start_name="igcv3_d_p50.tinyimagenet")
    chosen = values(facts)
    assert (chosen["init_from"], chosen["model"]) == ("igcv3_d_p50.tinyimagenet", "igcv3_d_p50")
    assert (chosen["input_size"], chosen["strides"]) == (64, (1, 1, 2, 2, 2, 1, 1, 1))
    assert chosen["lr"] == pytest.approx(0.3 * values(Facts(2400, 375, False, False))["lr"])
    assert chosen["freeze"] == round(chosen["epochs"] / 10)
    assert "freeze" not in values(replace(facts, images=20_000)) and "multiplier" not in chosen
    mxnet = start_card(input_size=224, strides=(), preprocessing=MXNET.to_dict(), multiplier=0.6)
    chosen = values(replace(facts, start=mxnet))
    assert (chosen["preprocessing"], chosen["input_size"], chosen["multiplier"]) == ("mxnet", 128, 0.6)
    assert values(replace(facts, start=start_card(preprocessing={})))["preprocessing"] == "imagenet"
    assert values(replace(facts, start=mxnet, gpu=True))["input_size"] == 224 and "strides" not in chosen


def test_the_weights_to_start_from(monkeypatch: pytest.MonkeyPatch) -> None:
    """Offline, training starts from cached ImageNet weights, else from weights that come with igcv."""
    photos, digits = Facts(2400, 375, False, False), Facts(1438, 8, True, False)
    assert start_for(photos, {}).name == "igcv3_d_p50.tinyimagenet"
    small = ("igcv3_w_025.digits", "igcv3_d_p50.cifar10")  # not trained on photos
    monkeypatch.setattr("igcv.weights.pretrained.released_weights", lambda: dict.fromkeys(small, Path()))
    found = start_for(photos, {})
    assert found.name == "none"
    assert found.reason == (
        "no weights trained on photos are available; "
        "igcv3_d_050.imagenet is not available: IGCV_OFFLINE forbids downloads"
    )
    known = (
        "igcv3_d_100.imagenet",
        "igcv3_d_p50.tinyimagenet",
        "igcv3_d_050.tinyimagenet",
        "igcv3_d_p50.cifar10",
    )
    monkeypatch.setattr("igcv.weights.pretrained.released_weights", lambda: dict.fromkeys(known, Path()))
    assert start_for(photos, {}).name == "igcv3_d_p50.tinyimagenet"
    assert "is not available: IGCV_OFFLINE forbids downloads" in start_for(photos, {}).reason
    assert start_for(replace(photos, gpu=True), {}).name == "igcv3_d_100.imagenet"
    assert start_for(photos, {"model": "igcv3_d_100"}).name == "igcv3_d_100.imagenet"
    assert start_for(photos, {"model": "mobilenetv2_100"}).name == "none"
    assert start_for(photos, {"init_from": "runs/mine"}).name == "runs/mine"
    assert start_for(digits, {}).name == start_for(photos, {"init_from": "none"}).name == "none"


def test_the_network_of_imagenet_weights() -> None:
    """Computed by hand: 30 epochs of 2,400 images are 72,000 images, an hour at 20 images/s."""
    photos = Facts(2400, 375, False, False)
    assert start_model(photos, {}) == start_model(photos, {"max_minutes": 59.9}) == "igcv3_d_050"
    assert start_model(photos, {"max_minutes": 60.0}) == "igcv3_d_100"
    assert start_model(replace(photos, gpu=True), {"max_minutes": 1.0}) == "igcv3_d_100"


def test_every_choice_has_a_reason() -> None:
    choices = choose(Facts(2400, 375, False, False), {})
    assert all(choice.reason for choice in choices.values())
    assert "  batch_size         64  (37 steps per epoch of 2,400 images)" in in_words(choices)
    assert set(choices) <= set(vars(Recipe()))


def test_the_typical_side_of_photos() -> None:
    images = [Image.new("RGB", size) for size in ((90, 30), (50, 40), (60, 200))]
    pictures: Any = [(image, 0) for image in images]
    assert typical_side(pictures) == 40


def test_one_command_is_all(
    digit_folder: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command needs no recipe and no run folder; the second call shows the result again."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").symlink_to(digit_folder)
    command = ("train", "--data", "folder:photos", "--device", "cpu", "epochs=2", "model=igcv3_w_010")
    first = igcv_command(*command)
    assert first.status == 0, first.err
    assert (
        "chosen for these images and this machine" in first.out
        and "steps per epoch of 24 images" in first.out
    )
    stored = load_recipe(tmp_path / "runs" / "photos" / "recipe.toml")
    assert (stored.epochs, stored.model, stored.batch_size, stored.drop_last) == (2, "igcv3_w_010", 4, False)
    again = igcv_command(*command)
    longer = "the run in 'runs/photos' is complete. To train longer: igcv train --resume"
    assert again.status == 0 and longer in again.out
    assert again.out.count("best top-1") == 1
    resumed = igcv_command("train", "--resume", "--out", "runs/photos", "--device", "cpu")
    assert resumed.status == 0 and "the run in 'runs/photos' is complete" in resumed.out
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
    assert default_folder(Draft({"data": "tinyimagenet:data/tiny-imagenet-200"})) == Path(
        "runs/tiny_imagenet_200"
    )
    assert default_folder(Recipe(data="folder:/home/me/My Photos")) == Path("runs/igcv3_d_100-my_photos")
    assert default_folder(Recipe(data="digits", data_name="Summer birds")) == Path(
        "runs/igcv3_d_100-summer_birds"
    )


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
    """A last batch of a single image is skipped, unless it is the only batch."""
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
        (3, rows(6.0), 10),  # more than the first guess
        (10, rows(6.0, 12.0), 6),  # slower: 42 seconds are left, at 9 seconds per epoch
        (10, rows(6.0, 2.0), 15),  # faster: 52 seconds are left, at 4 seconds per epoch
        (4, rows(6.0, 2.0, 2.0), 4),  # no increase in the second half: the learning rate follows four epochs
        (10, rows(70.0), 1),  # one epoch takes longer than the limit
    ],
)
def test_epochs_are_fitted_to_the_minutes(epochs: int, history: list[dict[str, Any]], expected: int) -> None:
    recipe = Recipe(max_minutes=1.0, epochs=epochs, warmup_epochs=2.0)
    found = fitted(recipe, history)
    assert found.epochs == expected and found.warmup_epochs <= expected / 4
    assert fitted(Recipe(epochs=epochs), history).epochs == epochs


@pytest.mark.parametrize(
    ("images", "val_images", "expected"),
    [
        (2400, 600, (22, 0)),  # 60 s / (2400 * 1 ms + 600 * 0.4 ms)
        (30_000, 100, (4, 14_960)),  # a quarter of a minute minus 0.04 s, at 1 ms per image
        (300_000, 60_000, (1, 36_000)),  # one evaluation takes 24 s
        (10, 2, (5555, 0)),
    ],
)
def test_epochs_are_fitted_to_the_pace(
    images: int, val_images: int, expected: tuple[int, int], digit_folder: Path
) -> None:
    given = {"data": str(digit_folder), "max_minutes": 1.0, "input_size": 32, "batch_size": 8}
    job = resolve(Draft(given), Process(torch.device("cpu")))
    source: Any = SimpleNamespace(train=range(images), val=range(val_images))
    assert fitting(replace(job, source=source), Pace(1e-3, 4e-4)) == expected
    paced = with_epochs(job, Choice(expected[0], "measured"), expected[1])
    assert paced.recipe.epochs == expected[0] and paced.chosen["epochs"].reason == "measured"
    assert paced.recipe.warmup_epochs == min(2, expected[0] / 10)


def test_epochs_and_image_sizes_agree(digit_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of the epochs use smaller images, and all epochs together take the given time."""
    monkeypatch.setattr("igcv.training.pace.measured_pace", lambda job, network: Pace(1e-3, 4e-4))
    given = {"data": str(digit_folder), "max_minutes": 1.0, "input_size": 64, "model": "igcv3_w_010"}
    job = resolve(Draft(given), Process(torch.device("cpu")))
    source: Any = SimpleNamespace(train=range(2400), val=range(600))
    job = replace(job, source=source, draft=(Facts(2400, 375, False, False), Draft(given).given))
    job = pace.paced(job, igcv.create_model("igcv3_w_010", num_classes=2, input_size=64))
    recipe = job.recipe
    assert recipe.progressive_sizes == (48,) and recipe.progressive_epochs == (round(recipe.epochs / 2),)
    # An epoch of 2.64 s at 64 pixels takes 9/16 of this time at 48 pixels.
    assert 60 - 2.64 <= job.expected_s <= 60
    assert recipe.epochs == 28


def test_more_images_than_the_time_allows(digit_folder: Path, tmp_path: Path) -> None:
    """An epoch gets fewer images, and the learning rate schedule completes."""
    settings = FEW | {"max_minutes": 1e-4, "batch_size": 4}
    del settings["epochs"]
    run = igcv.train(out=tmp_path / "run", data=str(digit_folder), device="cpu", quiet=True, **settings)
    recipe, history = load_recipe(run.folder / "recipe.toml"), read_metrics(run.folder)
    assert (recipe.epoch_images, len(history)) == (4, recipe.epochs) and recipe.epochs <= 4


def test_the_expected_time_is_said_before(digit_folder: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    told = igcv_command("train", "--data", digit_folder, "--out", tmp_path / "run", "--device", "cpu", *SET)
    assert told.status == 0, told.err
    before, _, after = told.out.partition("epoch 1/")
    assert "expected time: about" in before and after


def test_measuring_leaves_the_training_as_it_is(
    digit_folder: Path, tmp_path: Path, igcv_command: Igcv
) -> None:
    told = igcv_command("train", "--data", digit_folder, "--out", tmp_path / "told", "--device", "cpu", *SET)
    assert told.status == 0 and "expected time" in told.out
    igcv.train(out=tmp_path / "quiet", data=str(digit_folder), device="cpu", quiet=True, **FEW)
    first, second = (load_weights(tmp_path / name / "last.safetensors")[0] for name in ("told", "quiet"))
    assert all(torch.equal(first[name], second[name]) for name in first)


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
