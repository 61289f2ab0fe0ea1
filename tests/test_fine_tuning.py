"""Tests of training from trained weights: in stages, or with one learning rate."""

from pathlib import Path
from typing import Any

import pytest
import torch
from timm.optim import param_groups_layer_decay
from torch import Tensor

import igcv
from igcv.data import Loader
from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.training import Recipe, load_recipe
from igcv.training.job import resolve
from igcv.training.loop import train_epoch
from igcv.training.optimize import make_optimizer, parameter_groups, set_learning_rate, stages_of
from igcv.training.parts import make_loaders
from igcv.training.reporter import Silent
from igcv.training.start import make_trainer, start_network
from igcv.training.trainer import Trainer
from igcv.weights import load_weights
from tests.conftest import Igcv

TINY: dict[str, Any] = {
    "model": "igcv3_w_010",
    "input_size": 16,
    "batch_size": 8,
    "workers": 0,
    "precision": "float32",
    "lr": 0.05,
    "ema_decay": 0.0,
    "device": "cpu",
    "quiet": True,
}
RUN = ("device", "quiet")  # settings that are not recipe keys


@pytest.fixture(scope="module")
def start(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("start") / "run"
    return igcv.train(out=folder, data=str(digit_folder), epochs=1, **TINY).folder


def test_stages_by_hand() -> None:
    """The stages are the stem, seven stages, the head and the classifier; timm's differ in the classifier only."""
    network = igcv.create_model("igcv3_d_050", num_classes=5)
    stages = stages_of(network)
    assert stages["stem.conv.weight"] == 0 and stages["stages.0.0.project.conv.weight"] == 1
    assert stages["stages.6.0.expand.conv.weight"] == 7
    assert (stages["head.conv.weight"], stages["classifier.weight"]) == (8, 9)
    assert set(stages) == {name for name, _ in network.named_parameters()}


@pytest.mark.parametrize("name", ["igcv3_d_025", "mobilenetv2_100", "igcv1_l24m2_d20", "igcv2_c416_d20"])
def test_timm_groups_the_blocks_of_every_family(name: str) -> None:
    network = igcv.create_model(name, num_classes=5)
    groups = param_groups_layer_decay(network, layer_decay=0.5)
    blocks = sum(len(stage) for stage in network.stages)
    assert (
        len({group["lr_scale"] for group in groups}) == blocks + 2
    )  # plus the stem, and the head with the classifier


def test_rates_of_the_stages_by_hand() -> None:
    network = igcv.create_model("igcv3_d_025", num_classes=5)
    optimizer = make_optimizer(network, Recipe(freeze=1, epochs=2, init_from="start"))
    of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    classifier, head, stem = (
        of[id(layer.weight)] for layer in (network.classifier, network.head.conv, network.stem.conv)
    )
    set_learning_rate(optimizer, 0.1, "weights", frozen=True)
    assert (classifier["lr"], head["lr"], stem["lr"]) == (0.1, 0, 0)
    set_learning_rate(optimizer, 0.1, "weights")
    assert classifier["lr"] == 0.1 and head["lr"] == pytest.approx(0.08)
    assert stem["lr"] == pytest.approx(0.1 * 0.8**9)
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(list(network.parameters()))
    assert [group["lr_scale"] for group in parameter_groups(network, 0.1, "weights")] == [1, 1]


def trained(trainer: Trainer, loader: Loader, epoch: int) -> dict[str, Tensor]:
    """Return the weights and running statistics after an epoch."""
    loader.set_epoch(epoch)
    train_epoch(trainer, loader, epoch, Silent())
    return {name: tensor.clone() for name, tensor in trainer.network.state_dict().items()}


def test_frozen_layers_stay_as_they_are(start: Path, digit_folder: Path) -> None:
    """The first epoch trains the classifier only; later epochs change all layers and running statistics."""
    given = {"epochs": 2, "freeze": 1, "init_from": str(start), "data": str(digit_folder)}
    recipe = Recipe(**{key: value for key, value in {**TINY, **given}.items() if key not in RUN})
    job = resolve(recipe, Process(torch.device("cpu")))
    trainer, (loader, _) = make_trainer(job, start_network(job)), make_loaders(job)
    before = load_weights(start / "best.safetensors")[0]
    first = trained(trainer, loader, 0)
    assert {name for name in first if not torch.equal(first[name], before[name])} == {
        "classifier.weight",
        "classifier.bias",
    }
    second = trained(trainer, loader, 1)
    changed = {name for name in second if not torch.equal(second[name], first[name])}
    assert {"stem.conv.weight", "stem.norm.running_mean", "classifier.bias"} <= changed


def test_a_resumed_fine_tuning_is_uninterrupted(start: Path, digit_folder: Path, tmp_path: Path) -> None:
    """A run resumed within the frozen epochs has bitwise identical weights."""
    given = {"freeze": 2, "init_from": str(start), "data": str(digit_folder), "schedule": "constant"}
    igcv.train(Recipe(), tmp_path / "whole", epochs=4, **given, **TINY)
    igcv.train(Recipe(), tmp_path / "halves", epochs=3, **given, **TINY)
    with pytest.raises(InputError, match="freeze: got 1, expected 2 as in the run"):
        igcv.train(out=tmp_path / "halves", resume=True, epochs=4, freeze=1, device="cpu", quiet=True)
    igcv.train(out=tmp_path / "halves", resume=True, epochs=4, device="cpu", quiet=True)
    whole, halves = (load_weights(tmp_path / name / "last.safetensors")[0] for name in ("whole", "halves"))
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"freeze": 1}, "freeze: got 1 without init_from"),
        ({"freeze": 1, "init_from": "none"}, "freeze: got 1 without init_from"),
        ({"freeze": 2, "init_from": "igcv3_w_025.digits"}, "freeze: got 2, expected less than epochs = 2"),
        ({"epoch_images": 7}, "epoch_images: got 7, expected at least batch_size = 8"),
    ],
)
@pytest.mark.parametrize("recipe", [None, Recipe()])
def test_wrong_settings_are_explained(
    settings: dict[str, Any], message: str, recipe: Recipe | None, digit_folder: Path, tmp_path: Path
) -> None:
    given = TINY | {"data": str(digit_folder), "epochs": 2, **settings}
    with pytest.raises(InputError, match=message):
        igcv.train(recipe, tmp_path / "run", **given)


def test_a_start_is_all_that_is_given(
    start: Path, digit_folder: Path, tmp_path: Path, igcv_command: Igcv
) -> None:
    """Network, input size and strides follow from the weights; the run prints the name of the weights."""
    command = ("train", "--data", digit_folder, "--init-from", start, "--out", tmp_path / "run", "epochs=4")
    outcome = igcv_command(*command, "batch_size=8", "--device", "cpu")
    assert outcome.status == 0, outcome.err
    stored = load_recipe(tmp_path / "run" / "recipe.toml")
    assert (stored.model, stored.input_size, stored.freeze) == ("igcv3_w_010", 16, 1)
    assert f"starting from {start}" in outcome.out and "few images: the classifier first" in outcome.out


def test_no_start_is_a_start_from_random_weights(digit_folder: Path, tmp_path: Path) -> None:
    settings = TINY | {"data": str(digit_folder), "epochs": 1}
    runs = [igcv.train(out=tmp_path / n, init_from=n, **settings) for n in ("none",)]
    runs.append(igcv.train(Recipe(), tmp_path / "explicit", **settings))
    assert load_recipe(runs[0].folder / "recipe.toml").init_from == "none"
    assert load_recipe(runs[1].folder / "recipe.toml").init_from == ""
