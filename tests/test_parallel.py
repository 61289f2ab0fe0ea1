"""Training and evaluation with several processes on the CPU: same steps, images and metrics as with one process."""

import json
import multiprocessing
import re
import shutil
import socket
import time
from contextlib import chdir
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch.multiprocessing import start_processes

import igcv
from igcv.data.preprocessing import IMAGENET
from igcv.machine.processes import Process
from igcv.training import load_recipe, read_metrics
from igcv.training.checkpoint import restore
from igcv.training.optimize import make_optimizer
from igcv.training.phases import opened
from igcv.training.state import EpochProgress, State, flatten_optimizer
from igcv.training.trainer import Trainer
from igcv.weights import read_tensors, save_weights
from igcv.weights.card import Card
from studies.soak.lives import PRELOAD
from tests import several_processes as work
from tests.conftest import Igcv

CPU = torch.device("cpu")
ONE = Process(CPU)
TIME_LIMIT_S = 240


class Launch(NamedTuple):
    """Results of a test run with several processes."""

    processes: int
    folder: Path
    found: dict[str, Any]


@pytest.fixture(scope="module")
def alone(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the data, an initial network, and the runs of one process."""
    root = tmp_path_factory.mktemp("alone")
    for name in ("photos", "broken", "three"):
        shutil.copytree(digit_folder, root / name)
    for name in ("one/0.png", "one/7.png", "zero/3.png"):
        (root / "broken" / "train" / name).write_bytes(b"no image")
    for kept, name in ((2, "one"), (1, "zero")):
        for path in sorted((root / "three" / "val" / name).iterdir())[kept:]:
            path.unlink()
    for i in range(24):
        folder = root / "numbered" / f"{i:02}"
        folder.mkdir(parents=True)
        Image.new("RGB", (16, 16), (i, i, i)).save(folder / "0.png")
    torch.manual_seed(0)
    network = igcv.create_model("igcv3_w_025", 2, input_size=16)
    preprocessing = IMAGENET.to_dict() | {"input_size": 16}
    card = Card(
        model="igcv3_w_025",
        num_classes=2,
        input_size=16,
        strides=network.strides,
        preprocessing=preprocessing,
    )
    save_weights(root / "start.safetensors", network.state_dict(), card)
    with chdir(root), work.exact(batch_norm=False):
        work.run(work.STEPWISE, "one", ONE)
        work.run([*work.STEPWISE, "epochs=2"], "resumed", ONE)
        work.run(work.MIDWAY, "unstopped", ONE)
        work.stop_after(4, work.MIDWAY, "midway", ONE)
    return root


@pytest.fixture(scope="module", params=[2, 4], ids=["two", "four"])
def several(request: pytest.FixtureRequest, alone: Path, tmp_path_factory: pytest.TempPathFactory) -> Launch:
    """Return the results of two and of four processes with the same data."""
    folder = tmp_path_factory.mktemp(f"processes{request.param}") / "work"
    shutil.copytree(alone, folder)
    # Importing takes most of the time, so a server imports the modules once and forks the processes.
    multiprocessing.get_context("forkserver").set_forkserver_preload([*PRELOAD, "tests.several_processes"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    arguments = (request.param, port, folder)
    started = start_processes(work.work, arguments, request.param, join=False, start_method="forkserver")
    deadline = time.monotonic() + TIME_LIMIT_S
    try:
        while not started.join(timeout=1):  # raises the error of a process
            assert time.monotonic() < deadline, "the processes wait for each other"
    finally:
        for process in started.processes:
            process.kill()
    return Launch(request.param, folder, json.loads((folder / "results.json").read_text()))


@pytest.fixture(autouse=True)
def _there(alone: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Change to the folder of the data: recipes name the data by relative paths."""
    monkeypatch.chdir(alone)


@pytest.mark.parametrize("run, whole", [("parts", "one"), ("resumed", "one"), ("midway", "unstopped")])
def test_steps_are_those_of_one_process(run: str, whole: str, several: Launch, alone: Path) -> None:
    """Losses, weights and momenta equal those of one process.

    The runs use one and two micro-batches. They resume after two epochs of one process, or in the middle of an epoch.
    """
    expected, rows = read_metrics(alone / whole), read_metrics(several.folder / run)
    assert len(rows) == len(expected) == (4 if whole == "one" else 2)
    for key in ("train_loss", "val_loss", "val_top1", "lr"):
        assert [row[key] for row in rows] == pytest.approx([row[key] for row in expected], abs=2e-6), key
    assert len({row["train_loss"] for row in expected}) == len(expected)  # each epoch changes something
    for file in ("last.safetensors", "state.safetensors"):
        weights, _ = read_tensors(several.folder / run / file)
        reference, _ = read_tensors(alone / whole / file)
        assert weights.keys() == reference.keys()
        for name, tensor in reference.items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-10, atol=1e-12, msg=name)


def test_running_statistics_of_other_processes() -> None:
    """A state of three processes gives three processes their own statistics, other numbers of processes the mean."""
    norm, recipe = torch.nn.BatchNorm2d(2), load_recipe(None, ["batch_size=12"])
    rows = [torch.tensor([float(rank), 10.0 * rank]) for rank in range(3)]
    tensors = {f"model.{name}": tensor.clone() for name, tensor in norm.state_dict().items()}
    for rank, row in enumerate(rows):
        tensors[f"process{rank}.model.running_mean" if rank else "model.running_mean"] = row
        if rank:
            tensors |= {
                f"process{rank}.model.{n}": norm.get_buffer(n) for n in ("running_var", "num_batches_tracked")
            }
    optimizer = make_optimizer(norm, recipe)
    scalars = flatten_optimizer(optimizer)[1]
    progress = tuple(EpochProgress(4, float(rank), 10 * rank, 1.0 + rank) for rank in range(3))
    state = State(1, 50.0, 24, progress, {}, tensors, scalars)
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    for processes, rank, mean, done in (
        (3, 0, rows[0], EpochProgress(8, 0.0, 0, 1.0)),
        (3, 2, rows[2], EpochProgress(8, 2.0, 20, 3.0)),
        (1, 0, sum(rows) / 3, EpochProgress(8, 3.0, 30, 1.0)),  # 4 steps of 24 images equal 8 steps of 12
        (2, 1, sum(rows) / 3, EpochProgress(8)),
    ):
        trainer = Trainer(recipe, norm, norm, optimizer, scaler, None, None, Process(CPU, rank, processes))
        assert restore(trainer, state, Path("run")) == done
        assert torch.equal(norm.running_mean, mean)


def test_batch_norm_is_of_each_process(several: Launch, tmp_path: Path) -> None:
    """Hand-written momentum steps: gradients and running statistics are means over the per-process batches."""
    recipe = load_recipe(None, [*work.RECIPE, *work.BATCH_NORM])
    with work.exact(batch_norm=True):
        prepared = [
            opened(Process(CPU, rank, several.processes), recipe, tmp_path / str(rank), False)
            for rank in range(several.processes)
        ]
    networks, loaders = [p.trainer.network.train() for p in prepared], [p.parts.train for p in prepared]
    momenta = [torch.zeros_like(p) for p in networks[0].parameters()]
    for epoch in range(recipe.epochs):
        for loader in loaders:
            loader.set_epoch(epoch)
        losses = []
        for parts in zip(*loaders, strict=True):
            gradients = []
            for network, (images, labels) in zip(networks, parts, strict=True):
                loss = F.cross_entropy(network(images), labels)
                losses.append(loss.item())
                gradients.append(torch.autograd.grad(loss, list(network.parameters())))
            means = [torch.stack(part).mean(0) for part in zip(*gradients, strict=True)]
            momenta = [recipe.momentum * m + g for m, g in zip(momenta, means, strict=True)]
            for network in networks:
                with torch.no_grad():
                    for parameter, momentum in zip(network.parameters(), momenta, strict=True):
                        parameter -= recipe.lr * momentum
        for buffers in zip(*(network.buffers() for network in networks), strict=True):
            mean = torch.stack(buffers).double().mean(0)
            for buffer in buffers:
                buffer.copy_(mean)
        logged = read_metrics(several.folder / "batch_norm")[epoch]["train_loss"]
        assert logged == pytest.approx(sum(losses) / len(losses), abs=2e-6)
    weights, _ = read_tensors(several.folder / "batch_norm" / "last.safetensors")
    for name, tensor in networks[0].state_dict().items():
        torch.testing.assert_close(weights[name], tensor, rtol=1e-9, atol=1e-12, msg=name)


@pytest.mark.parametrize("batch_size, batches", [(8, 3), (20, 1)])
def test_every_training_image_once(batch_size: int, batches: int, several: Launch, tmp_path: Path) -> None:
    """Batches hold the same images as with one process; images that do not fill a batch differ in each epoch."""
    recipe = load_recipe(None, [*work.RECIPE, "data=numbered", f"batch_size={batch_size}"])
    loader = opened(ONE, recipe, tmp_path / "out", False).parts.train
    orders = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        expected = [sorted(labels.tolist()) for _, labels in loader]
        shares = [process[epoch] for process in several.found["images"][str(batch_size)]]
        whole = [sorted(chain(*parts)) for parts in zip(*shares, strict=True)]
        assert whole == expected
        assert {len(part) for part in chain(*shares)} == {batch_size // several.processes}
        seen = list(chain(*whole))
        assert len(seen) == len(set(seen)) == batches * batch_size
        orders.append(shares)
    assert orders[0] != orders[1]


@pytest.mark.parametrize("data, images", [("photos", 10), ("three", 3)])
def test_every_validation_image_once(data: str, images: int, several: Launch) -> None:
    """Metrics equal those of one process for ten images in unequal parts, and for three images in four processes."""
    expected = work.evaluation(data, ONE)
    found = several.found["evaluations"][data]
    assert sum(count for *_, count in found["confusion"]) == found["images"] == images
    assert found["mistakes"]
    assert found.pop("loss") == pytest.approx(expected.pop("loss"), rel=1e-12)
    assert found == expected


def test_loss_is_the_mean_over_images(several: Launch) -> None:
    """Process r has a loss of r on r + 1 images."""
    ranks = range(several.processes)
    images = sum(rank + 1 for rank in ranks)
    assert several.found["mean"]["images"] == images
    assert several.found["mean"]["loss"] == pytest.approx(sum(rank * (rank + 1) for rank in ranks) / images)


def test_unreadable_images_of_all_processes_count(several: Launch) -> None:
    assert [row["bad_images"] for row in read_metrics(several.folder / "broken")] == [3, 3]


def test_an_error_of_one_process_is_shared(several: Launch) -> None:
    expected = "SharedError: the last process cannot go on"
    assert several.found["errors"] == [expected] * several.processes


def test_numbers_of_one_process_stop_all(several: Launch) -> None:
    *others, last = several.found["non-finite loss"]
    assert set(others) == {"SharedError: non-finite loss in another process"}
    assert last.startswith(
        "InputError: non-finite loss (nan) at epoch 1, step 1, learning rate 0; first non-finite values"
    )
    assert re.search(r"Images of the batch: \S+\.png", last)


def test_other_data_is_refused(several: Launch) -> None:
    last = several.processes - 1
    for error in several.found["other data"]:
        assert "process 0 has 2 classes, 24 and 10 images for training and validation" in error
        assert f"process {last} has 2 classes, 24 and 3 images. Copy the same files to all nodes" in error


def test_data_is_opened_by_one_process_first(several: Launch) -> None:
    first, *others = several.found["opened"]
    assert first[1] <= min(began for began, _ in others)


def test_a_batch_that_cannot_be_shared(tmp_path: Path) -> None:
    recipe = load_recipe(None, [*work.RECIPE, "data=photos", "batch_size=18", "accumulation=2"])
    message = r"batch_size: got 18, expected a multiple of 8 \(4 processes with accumulation = 2\)"
    with pytest.raises(igcv.InputError, match=message):
        opened(Process(CPU, 3, 4), recipe, tmp_path / "out", False)


def test_an_error_of_one_process_names_it(igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "3")
    outcome = igcv_command("train", "epoch=3", "--data", "digits")
    assert outcome.status == 2
    assert outcome.err.startswith("igcv: process 3: unknown recipe key 'epoch'")
