"""Tests of recipes: resolution, round trip, errors; optimizer and schedule against hand-written arithmetic."""

import math
import re
from pathlib import Path

import pytest
import torch
from torch import nn

from igcv import InputError
from igcv.training import find_recipe, load_recipe
from igcv.training.draft import resolve_recipe
from igcv.training.optimize import learning_rate, make_optimizer, parameter_groups, set_learning_rate
from igcv.training.recipe import Recipe

RECIPES = sorted((Path(__file__).parents[1] / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda path: path.stem)
def test_shipped_recipes_load_and_come_back(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path)
    (tmp_path / "copy.toml").write_text(recipe.to_toml())
    assert load_recipe(tmp_path / "copy.toml") == recipe


def test_order_defaults_file_settings_arguments(tmp_path: Path) -> None:
    (tmp_path / "a.toml").write_text("epochs = 3\nlr = 1\n")
    recipe = load_recipe(
        tmp_path / "a.toml", ["epochs=5", "nesterov=False", "lr_step_epochs=[1,2]"], data="digits"
    )
    assert (recipe.epochs, recipe.lr, recipe.nesterov, recipe.lr_step_epochs) == (5, 1.0, False, (1.0, 2.0))
    assert (recipe.data, recipe.batch_size) == ("digits", Recipe().batch_size)


def test_text_is_kept_in_toml() -> None:
    recipe = Recipe(data='folder:a "b" \\ c')
    assert r'''data = "folder:a \"b\" \\ c"''' in recipe.to_toml()


@pytest.mark.parametrize(
    "settings, message",
    [
        (["epoch=3"], "unknown recipe key 'epoch'; did you mean 'epochs'"),
        (["epochs"], "got 'epochs', expected a recipe file"),
        (["epochs=x"], "epochs: got 'x', expected an integer"),
        (["epochs=1.5"], "expected an integer"),
        (["epochs=true"], "expected an integer"),
        (["lr=fast"], "lr: got 'fast', expected a number"),
        (["nesterov=1"], "expected true or false"),
        (["lr_step_epochs=[true]"], r"lr_step_epochs: got True in the list, expected numbers"),
        (["epochs=0"], "epochs: got 0, expected at least 1"),
        (["lr=nan"], "lr: got nan, expected at least 0"),
        (["optimizer=sdg"], "optimizer: got 'sdg', expected one of: sgd, adamw; did you mean 'sgd'"),
        (["label_smoothing=1"], "label_smoothing: got 1, expected less than 1"),
        (["lr=inf"], "lr: got inf, expected a finite number"),
        (["epochs=2", "warmup_epochs=10"], "warmup_epochs: got 10, expected at most epochs = 2"),
        (["schedule=step"], "schedule: got step without lr_step_epochs"),
        (["min_lr=0.1", "lr=0.05"], "min_lr: got 0.1, expected less than lr = 0.05"),
    ],
)
def test_wrong_settings_are_explained(settings: list[str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_recipe(None, settings)


def test_the_page_lists_every_recipe() -> None:
    page = (Path(__file__).parents[1] / "docs" / "train.md").read_text()
    assert [
        path.name for path in RECIPES if f"| `{path.name}`" not in page and f", `{path.name}`" not in page
    ] == []


@pytest.mark.parametrize("key", ["epoch", "path", "overrides"])
@pytest.mark.parametrize("recipe", [None, "digits.toml", Recipe()])
def test_unknown_settings_of_any_recipe_are_explained(recipe: Recipe | str | None, key: str) -> None:
    with pytest.raises(InputError, match=f"unknown recipe key '{key}'"):
        resolve_recipe(recipe, {key: "1"})


def test_unreadable_recipes_are_explained(tmp_path: Path) -> None:
    (tmp_path / "bad.toml").write_text("epochs = = 3")
    with pytest.raises(InputError, match="expected TOML"):
        load_recipe(tmp_path / "bad.toml")
    with pytest.raises(InputError, match=r"unknown recipe 'digit.toml'; did you mean 'digits.toml'"):
        find_recipe("digit.toml")
    with pytest.raises(
        InputError, match=r"got 'lr', expected a recipe file \(.toml\) or a setting, lr=VALUE"
    ):
        find_recipe("lr")
    with pytest.raises(
        InputError, match=r"got the folder '.*', expected a recipe file .* Give --data folder:"
    ):
        find_recipe(str(tmp_path))


def test_schedules() -> None:
    exponential = Recipe(schedule="exponential", lr=0.045, lr_factor=0.98)
    assert learning_rate(exponential, 2.9) == 0.045 * 0.98**2
    steps = Recipe(schedule="step", lr=0.1, lr_step_epochs=(200.0, 300.0))
    assert [learning_rate(steps, e) for e in (199.9, 200, 301)] == pytest.approx([0.1, 0.01, 0.001])
    cosine = Recipe(schedule="cosine", lr=1.0, epochs=12, warmup_epochs=2.0, min_lr=0.1)
    assert learning_rate(cosine, 1.0) == 0.5
    assert learning_rate(cosine, 2.0) == 1.0
    assert learning_rate(cosine, 7.0) == pytest.approx(0.1 + 0.9 * (1 + math.cos(math.pi / 2)) / 2)
    assert learning_rate(cosine, 12.0) == pytest.approx(0.1)


def small_network() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(1, 2, 3, bias=False), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(2, 2))


def test_decay_rules() -> None:
    network = small_network()
    weights = {(2, 1, 3, 3), (2, 2)}
    for rule, decaying in (("weights", weights), ("mxnet", {*weights, (2,)}), ("all", {*weights, (2,)})):
        decay, keep = parameter_groups(network, 0.1, rule)
        assert {tuple(p.shape) for p in decay["params"]} == decaying
        assert (decay["weight_decay"], keep["weight_decay"]) == (0.1, 0.0)
        assert len(decay["params"]) == {"weights": 2, "mxnet": 3, "all": 5}[rule]
        assert len(decay["params"]) + len(keep["params"]) == 5


def test_mxnet_momentum_under_a_changing_rate() -> None:
    """m = 0.9 m - lr (g + wd w); w += m, written out for one weight and the loss w."""
    layer = nn.Linear(1, 1, bias=False).double()
    nn.init.constant_(layer.weight, 2.0)
    recipe = Recipe(nesterov=False, momentum=0.9, weight_decay=0.1, decay_rule="mxnet")
    optimizer = make_optimizer(layer, recipe)
    weight, momentum = 2.0, 0.0
    for lr in (0.5, 0.25, 0.3):
        set_learning_rate(optimizer, lr, recipe.decay_rule)
        optimizer.zero_grad()
        layer(torch.ones(1, 1, dtype=torch.float64)).sum().backward()
        optimizer.step()
        momentum = 0.9 * momentum - lr * (1.0 + 0.1 * weight)
        weight += momentum
        assert layer.weight.item() == pytest.approx(weight, abs=1e-12)


def test_every_setting_of_the_reproduction_names_its_source() -> None:
    lines = find_recipe("recipes/cifar_paper.toml").read_text().splitlines()
    settings = [line for line in lines if line and not line.startswith("#")]
    unsourced = [line for line in settings if not re.search(r"# (\[(text|code|guess)\] ?)+", line)]
    assert [line.split(" = ")[0] for line in unsourced] == ["model", "data"]
