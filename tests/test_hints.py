"""Hints for common names of settings, settings typed as options, and common spellings of numbers."""

import re
from pathlib import Path

import pytest

from igcv.errors import InputError
from igcv.models import build_model
from igcv.training import Recipe, load_recipe
from igcv.training.draft import Draft
from igcv.training.usual_names import USUAL_NAMES, our_name
from tests.conftest import Igcv

COMMON = {
    "learning_rate": "lr",
    "imgsz": "input_size",
    "img_size": "input_size",
    "wd": "weight_decay",
    "weight-decay": "weight_decay",
    "bs": "batch_size",
    "num_epochs": "epochs",
    "arch": "model",
    "dataset": "data",
    "num_workers": "workers",
    "dropout": "drop_rate",
    "smoothing": "label_smoothing",
    "device": "--device",
    "output_dir": "--out",
}


@pytest.mark.parametrize("given, ours", COMMON.items())
def test_usual_names_lead_to_ours(given: str, ours: str, tmp_path: Path) -> None:
    hint = f"unknown recipe key '{given}'; did you mean '{ours}'?"
    recipe = tmp_path / "recipe.toml"
    recipe.write_text(f"{given} = 1\n")
    for attempt in (
        lambda: load_recipe(None, [f"{given}=1"]),
        lambda: load_recipe(recipe),
        lambda: Draft({given: 1}),
    ):
        with pytest.raises(InputError, match="unknown recipe key") as error:
            attempt()
        assert hint in str(error.value)


def test_the_table_of_usual_names_holds() -> None:
    keys = set(vars(Recipe()))
    assert {ours for ours in USUAL_NAMES if not ours.startswith("--")} <= keys
    usual = [name for names in USUAL_NAMES.values() for name in names]
    assert len(usual) == len(set(usual)) and keys.isdisjoint(usual)
    assert our_name("color") is None


@pytest.mark.parametrize(
    "words, message",
    [
        (["--lr", "0.1"], "unknown option --lr. Give the setting lr=0.1"),
        (["--lr=0.1"], "unknown option --lr. Give the setting lr=0.1"),
        (["-b", "64"], "unknown option -b. Give the setting batch_size=64"),
        (["--learning-rate"], "unknown option --learning-rate. Give the setting lr=VALUE"),
        (["--batch-size", "--quiet"], "unknown option --batch-size. Give the setting batch_size=VALUE"),
        (["--output", "x"], "unknown option --output; did you mean --out?"),
    ],
)
@pytest.mark.parametrize("command", [["train"], ["check", "digits"], ["bench", "data"]])
def test_options_that_are_settings(
    command: list[str], words: list[str], message: str, igcv_command: Igcv
) -> None:
    ended = igcv_command(*command, *words)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith(f"igcv: {message}") and ended.err.count("\n") == 1


def test_an_option_that_nobody_knows(igcv_command: Igcv) -> None:
    ended = igcv_command("train", "--bogus", "1")
    assert ended.status == 2 and re.search("No such option:? '?--bogus", ended.err)


@pytest.mark.parametrize(
    "text, value",
    [
        ("lr=.1", 0.1),
        ("lr=1.", 1.0),
        ("lr=1e-3", 0.001),
        ("lr=2", 2.0),
        ("epochs=1e2", 100),
        ("batch_size=64.0", 64),
        ("epoch_images=1_000", 1000),
        ("epochs=007", 7),
        ("lr_step_epochs=.5,1", (0.5, 1.0)),
        ("progressive_sizes=", ()),
        ("strides=[1, 2.0,1]", (1, 2, 1)),
        ("compile=True", True),
        ("model=1e2", "1e2"),
    ],
)
def test_usual_spellings_of_numbers(text: str, value: object) -> None:
    key = text.partition("=")[0]
    if key == "model":
        assert load_recipe(None, [text]).model == value
        return
    found = getattr(load_recipe(None, [text]), key)
    assert (found, type(found)) == (value, type(value))


@pytest.mark.parametrize(
    "text, message",
    [
        ("epochs=1.5", "epochs: got 1.5, expected an integer"),
        ("lr=high", "lr: got 'high', expected a number"),
        ("compile=1", "compile: got 1, expected true or false"),
        ("strides=1,2.5", "strides: got 2.5 in the list, expected integers"),
        ("lr=nan", "lr: got nan, expected at least 0"),
        ("epochs=inf", "epochs: got inf, expected an integer"),
    ],
)
def test_what_is_no_number_of_a_setting(text: str, message: str) -> None:
    with pytest.raises(InputError) as error:
        load_recipe(None, [text])
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(
    "name", ["resnet50", "efficientnet_b0", "mobilenetv3_large", "mobilenet_v3_small", "vit"]
)
def test_networks_of_other_families(name: str) -> None:
    with pytest.raises(InputError) as error:
        build_model(name)
    assert str(error.value) == (
        f"unknown model '{name}': igcv has networks of the families IGCV1, IGCV2, IGCV3 and MobileNetV2 "
        "(igcv models lists them all)"
    )


@pytest.mark.parametrize(
    "name, meant",
    [
        ("mobilenet_v2", "mobilenetv2_100"),
        ("IGCV3_D_100", "igcv3_d_100"),
        ("igcv3-d", "igcv3_d_100"),
        ("icgv3_d_100", "igcv3_d_100"),
    ],
)
def test_networks_misspelled(name: str, meant: str) -> None:
    with pytest.raises(InputError, match=f"unknown model '{name}'; did you mean '{meant}'"):
        build_model(name)
