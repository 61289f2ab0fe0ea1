"""Optimizer steps as CUDA graphs."""

from dataclasses import replace
from typing import Any

import pytest
import torch
from timm.utils import ModelEmaV3
from torch import nn

from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.training.graphs import WARM_UP, hindrance, update_average
from igcv.training.job import resolve
from igcv.training.loop import train_epoch
from igcv.training.pace import Steps, endless
from igcv.training.parts import make_loaders
from igcv.training.recipe import Recipe
from igcv.training.reporter import Silent
from igcv.training.start import make_trainer, start_network
from igcv.training.trainer import Trainer

GPU, CPU = torch.device("cuda"), torch.device("cpu")


@pytest.mark.parametrize(
    ("changes", "device", "processes", "reason"),
    [
        ({}, GPU, 1, ""),
        ({"precision": "bf16", "clip_grad_norm": 1.0, "drop_rate": 0.2, "mixup": 0.1}, GPU, 1, ""),
        ({}, CPU, 1, "the device is not an NVIDIA GPU"),
        ({}, torch.device("mps"), 1, "the device is not an NVIDIA GPU"),
        ({}, GPU, 2, "2 processes"),
        ({"precision": "fp16"}, GPU, 1, "precision = fp16"),
        ({"decay_rule": "mxnet"}, GPU, 1, "decay_rule = mxnet"),
        ({"optimizer": "adamw"}, GPU, 1, "optimizer = adamw"),
        ({"accumulation": 2}, GPU, 1, "accumulation = 2"),
    ],
    ids=str,
)
def test_steps_that_cannot_be_graphs(
    changes: dict[str, Any], device: torch.device, processes: int, reason: str
) -> None:
    found = hindrance(Recipe(**changes), device, processes)
    assert found.startswith(reason)
    assert bool(found) == bool(reason)


def test_a_cpu_has_no_graphs() -> None:
    recipe = Recipe(model="igcv3_w_010", data="digits", resident="on")
    job = resolve(recipe, Process(CPU))
    assert not job.graphs
    assert job.recipe.cuda_graph == "auto"  # stored, so that the run may continue on a GPU
    with pytest.raises(InputError, match="cuda_graph = on, but the device is not an NVIDIA GPU"):
        resolve(Recipe(model="igcv3_w_010", data="digits", cuda_graph="on"), Process(CPU))


def test_the_moving_average_is_that_of_timm() -> None:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).train()
    theirs, ours = (ModelEmaV3(network, decay=0.9, use_warmup=True) for _ in range(2))
    job = resolve(Recipe(model="igcv3_w_010", data="digits"), Process(CPU))
    trainer = replace(make_trainer(job, start_network(job)), network=network, ema=ours)
    for step in range(5):
        network(torch.randn(2, 3, 8, 8))
        with torch.no_grad():
            network[0].weight.add_(torch.randn_like(network[0].weight))
        theirs.update(network, step)
        update_average(trainer, torch.tensor(1 - theirs.get_decay(step)))
    for name, value in theirs.module.state_dict().items():
        torch.testing.assert_close(ours.module.state_dict()[name], value)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs an NVIDIA GPU")
def test_a_graph_trains_as_single_kernels() -> None:
    def trained(cuda_graph: str) -> Trainer:
        changes = {"model": "igcv3_w_010", "data": "digits", "ema_decay": 0.9, "resident": "on", "workers": 0}
        job = resolve(Recipe(**changes, batch_size=32, cuda_graph=cuda_graph), Process(GPU))
        torch.manual_seed(0)
        trainer = make_trainer(job, start_network(job))
        train_epoch(trainer, Steps(endless(make_loaders(job)[0]), WARM_UP + 5, trainer), 0, Silent())
        return trainer

    one, other = trained("on"), trained("off")
    assert one.graphs and not other.graphs
    for found, expected in ((one.network, other.network), (one.evaluated, other.evaluated)):
        for name, value in expected.state_dict().items():
            torch.testing.assert_close(found.state_dict()[name], value, rtol=1e-4, atol=1e-5)
