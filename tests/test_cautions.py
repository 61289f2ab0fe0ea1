"""Tests of the warnings about settings before a training."""

import re
from pathlib import Path

import pytest
import torch

from igcv.machine.processes import Process
from igcv.training import load_recipe
from igcv.training.cautions import cautions
from igcv.training.job import resolve

SMALL = ["model=igcv3_w_010", "input_size=16", "batch_size=2", "epochs=4", "lr=0.01"]


def said(data: Path, *settings: str) -> list[str]:
    job = resolve(load_recipe(None, [*SMALL, f"data={data}", *settings]), Process(torch.device("cpu")))
    return [*cautions(job, batches=12)]


@pytest.mark.parametrize(
    "settings, line",
    [
        (["lr_step_epochs=2"], "lr_step_epochs = 2 has no effect: schedule = cosine has no steps"),
        (["lr_factor=0.5"], "lr_factor = 0.5 has no effect: schedule = cosine has no factor"),
        (
            ["min_lr=0.001", "schedule=constant"],
            "min_lr = 0.001 has no effect: only schedule = cosine uses it",
        ),
        (["decay_rule=all", "weight_decay=0"], "decay_rule = all has no effect: weight_decay is 0"),
        (["max_left_out=3"], "max_left_out = 3 has no effect: precision is float32, not fp16"),
        (
            ["schedule=step", "lr_step_epochs=2,9"],
            "lr_step_epochs = 2,9 has no effect: the training ends at epoch 4",
        ),
        (
            ["sync_batch_norm=false", "optimizer=adamw", "lr=0.1"],
            "lr = 0.1 suits sgd and is too high for adamw",
        ),
        (["lr=0"], "lr = 0, so the network does not learn"),
    ],
)
def test_what_is_said(settings: list[str], line: str, digit_folder: Path) -> None:
    (found,) = said(digit_folder, *settings)
    assert re.match(f"caution: {re.escape(line)}", found)


def test_nothing_is_said_of_settings_that_act(digit_folder: Path) -> None:
    assert said(digit_folder) == []
    assert said(digit_folder, "schedule=step", "lr_step_epochs=2", "lr_factor=0.5", "optimizer=adamw") == []


def test_settings_of_a_validation_that_is_not_there(tmp_path: Path, digit_folder: Path) -> None:
    """Each class has one image, so no validation images are held out."""
    for name in ("one", "zero"):
        (tmp_path / name).mkdir()
        source = digit_folder / "train" / name / "0.png"
        (tmp_path / name / "0.png").write_bytes(source.read_bytes())
    lines = said(tmp_path, "patience=3", "best_by=loss")
    assert any("patience = 3 has no effect: there are no validation images" in line for line in lines)
    assert any("best_by = loss has no effect: there are no validation images" in line for line in lines)
