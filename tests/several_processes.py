"""Work of each process that tests/test_parallel.py starts."""

import json
import math
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import chdir, contextmanager, suppress
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

import igcv
from igcv.data.sources.open import open_source
from igcv.errors import InputError, Interrupted
from igcv.evaluation.accuracy import evaluate_in
from igcv.machine.processes import Process, first_on_machine, gather, process_group, together
from igcv.models import build_model
from igcv.training import load_recipe, loop
from igcv.training.job import check_same
from igcv.training.loop import Wish
from igcv.training.phases import opened, train_in
from igcv.training.state import EpochProgress, combined

RECIPE = [
    *("model=igcv3_w_025", "input_size=8", "augment=shift", "workers=0", "schedule=constant", "lr=0.05"),
]
# One step per epoch logs the loss of each step. All features that do not depend on the process are on.
STEPWISE = [
    *("data=photos", "batch_size=16", "epochs=4", "clip_grad_norm=1", "label_smoothing=0.1"),
    *("ema_decay=0.5", "warmup_epochs=1.5"),
]
PARTS = [*STEPWISE, "accumulation=2"]
# Three steps per epoch: a run can stop in the middle of an epoch.
MIDWAY = [*STEPWISE, "batch_size=8", "epochs=2"]
# With fewer pixels or a higher learning rate, batch norm over three images amplifies rounding errors in each step.
BATCH_NORM = [
    *("data=photos", "batch_size=12", "epochs=2", "input_size=16", "lr=0.001"),
    *("weight_decay=0", "nesterov=false"),
]
SHARES = (8, 20)  # batch sizes for 24 images: three full batches; one full batch and four skipped images


def work(rank: int, world_size: int, port: int, folder: Path) -> None:
    """Run as process `rank`, like torchrun would start it, in the folder that the test prepared."""
    values = {"RANK": rank, "WORLD_SIZE": world_size, "LOCAL_RANK": rank, "LOCAL_WORLD_SIZE": world_size}
    places = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    os.environ |= {name: str(value) for name, value in (values | places).items()}
    torch.set_num_threads(1)
    with chdir(folder):
        everything()


def everything() -> None:
    """Run all parts of the test; rank 0 writes the results to results.json."""
    with process_group("cpu") as process:
        with exact(batch_norm=False):
            run(PARTS, "parts", process)
            run(STEPWISE, "resumed", process, resume=True)
            run(MIDWAY, "midway", process, resume=True)
        with exact(batch_norm=True):
            run(BATCH_NORM, "batch_norm", process)
            run([*BATCH_NORM, "data=broken", "resident=off", "max_bad_images=3"], "broken", process)
        found = {
            "images": {str(size): gather(images_of_epochs(size, process)) for size in SHARES},
            "evaluations": {data: evaluation(data, process) for data in ("photos", "three")},
            "mean": mean_loss(process.rank),
            "errors": gather(error_of(lambda: fail_last(process))),
            "other data": gather(error_of(lambda: open_other_data(process))),
            "opened": gather(first_on_machine(process, opening)),
            "non-finite loss": gather(error_of(lambda: lose_numbers(process))),
        }
    if process.is_main:
        Path("results.json").write_text(json.dumps(found))


def run(settings: list[str], out: str, process: Process, resume: bool = False) -> None:
    recipe = load_recipe(None, [*RECIPE, *settings])
    train_in(process, recipe, Path(out), resume=resume, quiet=True)


def stop_after(steps: int, settings: list[str], out: str, process: Process) -> None:
    """Train, with a signal to end the run after `steps` steps."""
    wishes = [Wish()] * (steps - 1) + [Wish(signal=signal.SIGTERM)]
    with mock.patch("igcv.training.checkpoint.Watch.wish", side_effect=wishes), suppress(Interrupted):
        run(settings, out, process)
        raise AssertionError("the run was not interrupted")


@contextmanager
def exact(batch_norm: bool) -> Iterator[None]:
    """Train networks in float64; without `batch_norm`, replace batch norm, which depends on the per-process batch."""

    def build(*arguments: object, **keywords: object) -> nn.Module:
        return in_float64(build_model(*arguments, **keywords), batch_norm)

    with mock.patch("igcv.training.start.build_model", build):
        yield


def in_float64(network: nn.Module, batch_norm: bool) -> nn.Module:
    """Convert `network` to float64, for float32 images; without `batch_norm`, normalize each image separately."""
    for module in list(network.modules()) if not batch_norm else ():
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm2d):
                setattr(module, name, nn.GroupNorm(1, child.num_features))
    network.register_forward_pre_hook(images_in_float64)
    return network.double()


def images_in_float64(network: nn.Module, arguments: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    return (arguments[0].double(),)


def images_of_epochs(batch_size: int, process: Process) -> list[list[list[int]]]:
    """Return the image numbers of this process for two epochs, batch by batch."""
    recipe = load_recipe(None, [*RECIPE, "data=numbered", f"batch_size={batch_size}"])
    loader = opened(process, recipe, Path(f"numbered{batch_size}"), False).parts.train
    epochs = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        epochs.append([labels.tolist() for _, labels in loader])  # each image has its own class
    return epochs


def evaluation(data: str, process: Process) -> dict[str, object]:
    """Evaluate the initial network on the validation images, with all processes."""
    classifier = igcv.load("start.safetensors")
    in_float64(classifier.model, batch_norm=True)
    source = open_source(data)
    found = evaluate_in(process, classifier, source, batch_size=2, workers=0)
    confusion = [[*pair, images] for pair, images in found.confusion.items()]
    mistakes = [mistake.as_dict(classifier.preprocessing) for mistake in found.mistakes]
    mistakes = [{**mistake, "image": os.path.relpath(mistake["image"])} for mistake in mistakes]
    numbers = {key: getattr(found, key) for key in ("loss", "top1", "top5", "images")}
    return numbers | {"confusion": confusion, "mistakes": mistakes}


def mean_loss(rank: int) -> dict[str, float]:
    """Return the combined loss of all processes; process r has a loss of r on r + 1 images."""
    whole = combined(gather(EpochProgress(1, float(rank * (rank + 1)), rank + 1)))
    return {"loss": whole.loss, "images": whole.images}


def error_of(action: Callable[[], None]) -> str:
    """Return the input error that `action` raises, or "none"."""
    try:
        action()
    except InputError as error:
        return f"{type(error).__name__}: {error}"
    return "none"


def fail_last(process: Process) -> None:
    """Raise an error in the last process only."""
    with together():
        if process.rank == process.world_size - 1:
            raise InputError("the last process cannot go on")


def lose_numbers(process: Process) -> None:
    """Train with a NaN loss in the last process only."""
    compute = loop._forward_backward

    def broken(*arguments: Any) -> float:
        loss = compute(*arguments)
        return math.nan if process.rank == process.world_size - 1 else loss

    with mock.patch.object(loop, "_forward_backward", broken):
        run(MIDWAY, "bad_numbers", process)


def open_other_data(process: Process) -> None:
    """Open other data in the last process only."""
    check_same(open_source("three" if process.rank == process.world_size - 1 else "photos"))


def opening() -> tuple[float, float]:
    """Return the times of the start and the end, in seconds."""
    began = time.monotonic()
    time.sleep(0.05)
    return began, time.monotonic()
