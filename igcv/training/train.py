"""From a recipe to a run folder: opens the data, builds what an epoch needs, and repeats it."""

import os
import platform
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import timm
import torch
from timm.utils import ModelEmaV3, random_seed
from torch import Tensor, nn

import igcv
from igcv.classifier import fill, load
from igcv.data import (
    CIFAR,
    IMAGENET,
    MXNET,
    DataSource,
    Loader,
    Preprocessing,
    eval_transform,
    make_loader,
    open_source,
    train_transform,
)
from igcv.errors import InputError
from igcv.models import Network, create_model, default_input_size
from igcv.report import draw_curves
from igcv.training.distributed import Process, parallel, sum_over_processes
from igcv.training.evaluate import Evaluation, evaluate
from igcv.training.loop import Epoch, Trainer, make_mix, train_epoch
from igcv.training.optimize import learning_rate, make_optimizer
from igcv.training.progress import Reporter, reporter
from igcv.training.recipe import Recipe
from igcv.training.run import CURVES, Run, State, flatten_optimizer, restore_optimizer
from igcv.weights import Card

PREPROCESSING = {"imagenet": IMAGENET, "cifar": CIFAR, "mxnet": MXNET}


@dataclass(frozen=True)
class Job:
    """A resolved run: what is trained, on what, where."""

    recipe: Recipe
    source: DataSource
    preprocessing: Preprocessing
    process: Process
    batch_size: int  # of one part in one process
    workers: int


def plan(recipe: Recipe, process: Process) -> Job:
    """Open the data and fill in what the recipe leaves to it; all that can be wrong is found here.

    Raises:
        InputError: for anything in the recipe that does not fit the data, the network or the processes.
    """
    if not recipe.data:
        raise InputError("no data set given; add --data, e.g. --data digits or --data folder:PATH")
    parts = process.world_size * recipe.accumulation
    if recipe.batch_size % parts:
        raise InputError(
            f"batch_size {recipe.batch_size} cannot be shared by {process.world_size} processes in "
            f"{recipe.accumulation} parts each; give a multiple of {parts}"
        )
    if recipe.precision == "fp16" and process.device.type == "cpu":
        raise InputError("precision fp16 needs a GPU; on the CPU give precision=float32 or precision=bf16")
    if recipe.mixup and (recipe.batch_size // parts) % 2:
        raise InputError(
            f"mixup pairs images: {recipe.batch_size // parts} per process and part is odd; change it"
        )
    source = open_source(recipe.data, seed=0)
    if source.train is None:
        raise InputError(f"{recipe.data} has no training images; give a source with a training part")
    native = source.image_size or default_input_size(recipe.model)
    size = recipe.input_size or min(native, default_input_size(recipe.model))
    preset = PREPROCESSING[recipe.preprocessing]
    crop = 1.0 if source.image_size is not None and source.image_size <= size else preset.crop
    return Job(
        recipe=replace(recipe, input_size=size),
        source=source,
        preprocessing=replace(preset, input_size=size, crop=crop),
        process=process,
        batch_size=recipe.batch_size // parts,
        workers=_workers(recipe.workers, process, len(source.train)),
    )


def _workers(asked: int, process: Process, images: int) -> int:
    """Loading processes: as asked, else none for small sets, one on the CPU, a share of the cores beside a GPU."""
    if asked >= 0:
        return asked
    if images < 5000:
        return 0
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 1 if process.device.type == "cpu" else max(1, min(8, cores // process.world_size))


def train(
    recipe: Recipe, out: Path, process: Process, *, resume: bool = False, quiet: bool = False
) -> dict[str, Any]:
    """Train a network and leave everything in the folder `out` (see igcv.training.run).

    Args:
        recipe: all settings.
        out: the run folder; a new one, unless `resume`.
        process: this process; the first one writes.
        resume: go on after the last finished epoch of the run in `out`.
        quiet: print nothing.

    Returns:
        The summary: best and last accuracy in percent, time, parameters, and the machine.

    Raises:
        InputError: for anything the user can mend.
    """
    torch.manual_seed(recipe.seed)
    job = plan(recipe, process)
    network = build_network(job)
    run = Run(out, resume) if process.is_main else None
    loaders = make_loaders(job)
    trainer, state = make_trainer(job, network, out if resume else None)
    if run:
        run.save_recipe(job.recipe)
    steps = max(1, len(loaders[0]) // recipe.accumulation)
    with reporter(
        recipe.epochs, steps * recipe.epochs, steps * state.epoch, quiet or not process.is_main
    ) as report:
        report.say(headline(job, network, out, state.epoch))
        return run_epochs(job, trainer, loaders, state, run, report)


def headline(job: Job, network: Network, out: Path, done: int) -> str:
    """What is about to happen, in two lines."""
    recipe, source = job.recipe, job.source
    parameters = sum(p.numel() for p in network.parameters())
    images = f"{len(source.train or []):,} training and {len(source.val or []):,} validation images"
    device = torch.cuda.get_device_name(job.process.device) if job.process.device.type == "cuda" else "CPU"
    places = f"{job.process.world_size} processes, " if job.process.world_size > 1 else ""
    return (
        f"{recipe.model}: {parameters:,} parameters, {recipe.input_size} x {recipe.input_size} pixels, "
        f"{len(source.class_names)} classes\n"
        f"{source.spec}: {images}; {places}{device}, {recipe.precision}; "
        f"{f'going on after epoch {done} of' if done else 'for'} {recipe.epochs} epochs; run folder {out}"
    )


def build_network(job: Job) -> Network:
    """The recipe's network on the device, with fresh weights or those of `init_from`."""
    recipe, classes = job.recipe, len(job.source.class_names)
    network = create_model(
        recipe.model, classes, recipe.multiplier, recipe.input_size, drop_rate=recipe.drop_rate
    )
    if recipe.init_from:
        start = load(recipe.init_from)
        if start.card.num_classes != classes:
            start.model.reset_classifier(classes)
        tensors = start.model.state_dict()
        fill(network, tensors, f"{recipe.init_from} ({start.card.model})")
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    return network.to(job.process.device, memory_format=layout)  # type: ignore[call-overload]


def make_loaders(job: Job) -> tuple[Loader, Loader | None]:
    """Training and validation batches."""
    recipe, source, process = job.recipe, job.source, job.process
    assert source.train is not None
    shard = {"rank": process.rank, "world_size": process.world_size}
    augmented = train_transform(job.preprocessing, recipe.augment, recipe.randaugment, recipe.random_erasing)
    train_loader = make_loader(
        source.train,
        augmented,
        job.batch_size,
        train=True,
        seed=recipe.seed,
        workers=job.workers,
        skip_bad=True,
        **shard,
    )
    if source.val is None:
        return train_loader, None
    plain = eval_transform(job.preprocessing)
    workers = job.workers if len(source.val) >= 5000 else 0
    val_loader = make_loader(
        source.val,
        plain,
        max(job.batch_size, 64),
        train=False,
        seed=0,
        workers=workers,
        skip_bad=False,
        **shard,
    )
    return train_loader, val_loader


def make_trainer(job: Job, network: Network, resume_from: Path | None) -> tuple[Trainer, State]:
    """Optimizer, moving average and the rest, fresh or as the run in `resume_from` left them."""
    recipe, process = job.recipe, job.process
    optimizer = make_optimizer(network, recipe)
    ema = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    scaler = torch.amp.GradScaler(process.device.type, enabled=recipe.precision == "fp16")
    state = State()
    if resume_from:
        state = Run(resume_from, resume=True).load_state()
        fill(network, _under("model.", state.tensors), f"the run in {resume_from}")
        if ema is not None:
            fill(ema.module, _under("ema.", state.tensors), f"the moving average in {resume_from}")
        restore_optimizer(optimizer, state.tensors, state.scalars)
        scaler.load_state_dict(state.scalars["scaler"]) if scaler.is_enabled() else None
    if recipe.compile:
        network.compile()
    model = parallel(network, process, recipe.sync_batch_norm, recipe.accumulation)
    mix = make_mix(recipe, len(job.source.class_names))
    return Trainer(
        recipe, network, model, optimizer, scaler, ema, mix, process.device, process.world_size
    ), state


def _under(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names start with `prefix`, without it."""
    return {name.removeprefix(prefix): tensor for name, tensor in tensors.items() if name.startswith(prefix)}


def run_epochs(
    job: Job,
    trainer: Trainer,
    loaders: tuple[Loader, Loader | None],
    state: State,
    run: Run | None,
    report: Reporter,
) -> dict[str, Any]:
    """Train and evaluate epoch after epoch; the first process writes the run folder."""
    train_loader, val_loader = loaders
    history = run.history(state.epoch) if run else []
    started, first = time.perf_counter(), state.epoch
    result = None
    for epoch in range(state.epoch, job.recipe.epochs):
        train_loader.set_epoch(epoch)
        seed_epoch(job, epoch)
        measured = train_epoch(trainer, train_loader, epoch, report)
        evaluated = trainer.ema.module if trainer.ema is not None else trainer.network
        classes = len(job.source.class_names)
        result = (
            evaluate(evaluated, val_loader, classes, job.process.device, job.recipe.precision)
            if val_loader
            else None
        )
        measured = replace(measured, loss=_mean_over_processes(measured.loss, job.process))
        state = _advance(state, trainer, result)
        per_epoch = (time.perf_counter() - started) / (epoch + 1 - first)
        row = _row(job.recipe, epoch, measured, result, len(train_loader.bad), per_epoch)
        if run:
            is_best = result is None or result.top1 == state.best_top1
            run.save_epoch(state, evaluated.state_dict(), _card(job, row, result), is_best)
            run.log(row, history)
            report.epoch(row)
    return _finish(job, trainer.network, run, history, result, time.perf_counter() - started, report)


def seed_epoch(job: Job, epoch: int) -> None:
    """Make what follows (mixing, dropout) depend on seed, epoch and process only, so that a resumed run repeats it."""
    sequence = np.random.SeedSequence((job.recipe.seed, epoch, job.process.rank))
    random_seed(int(sequence.generate_state(1)[0]))


def _mean_over_processes(value: float, process: Process) -> float:
    total = sum_over_processes(torch.tensor(value, device=process.device))
    return total.item() / process.world_size


def _advance(state: State, trainer: Trainer, result: Evaluation | None) -> State:
    """The state after one more epoch."""
    tensors = {f"model.{name}": t for name, t in trainer.network.state_dict().items()}
    if trainer.ema is not None:
        tensors |= {f"ema.{name}": t for name, t in trainer.ema.module.state_dict().items()}
    momenta, scalars = flatten_optimizer(trainer.optimizer)
    scalars["scaler"] = trainer.scaler.state_dict()
    best = max(state.best_top1, result.top1 if result else -1.0)
    return State(state.epoch + 1, best, tensors | momenta, scalars)


def _row(
    recipe: Recipe, epoch: int, measured: Epoch, result: Evaluation | None, bad: int, per_epoch_s: float
) -> dict[str, Any]:
    """An epoch's line in the metrics log; times in seconds, accuracies in percent."""
    row = {
        "epoch": epoch + 1,
        "train_loss": round(measured.loss, 6),
        "lr": learning_rate(recipe, epoch),
        "images_per_s": round(measured.images / measured.time_s, 2),
        "train_time_s": round(measured.time_s, 3),
        "data_wait_s": round(measured.data_wait_s, 3),
        "epoch_time_s": round(per_epoch_s, 3),
        "time_left_s": round(per_epoch_s * (recipe.epochs - epoch - 1), 1),
        "bad_images": bad,
    }
    if result is not None:
        row |= {"val_loss": round(result.loss, 6), "val_top1": result.top1, "val_top5": result.top5}
    return row


def _card(job: Job, row: dict[str, Any], result: Evaluation | None) -> Card:
    """What the weights of this epoch are."""
    recipe = job.recipe
    measured = (
        {"data": recipe.data, "images": result.images, "top1": result.top1, "top5": result.top5}
        if result
        else {}
    )
    return Card(
        model=recipe.model,
        num_classes=len(job.source.class_names),
        multiplier=recipe.multiplier,
        input_size=recipe.input_size,
        class_names=job.source.class_names,
        preprocessing=job.preprocessing.to_dict(),
        recipe={key: value for key, value in vars(recipe).items() if value is not None},
        results={**measured, "epoch": row["epoch"]},
        source={"trained_with": f"igcv {igcv.__version__}"},
    )


def _finish(
    job: Job,
    network: nn.Module,
    run: Run | None,
    history: list[dict[str, Any]],
    result: Evaluation | None,
    time_s: float,
    report: Reporter,
) -> dict[str, Any]:
    """Write summary, curves and TensorBoard events."""
    summary: dict[str, Any] = {
        "model": job.recipe.model,
        "parameters": sum(p.numel() for p in network.parameters()),
        "data": job.recipe.data,
        "epochs": job.recipe.epochs,
        "time_s": round(time_s, 2),
        "best_top1": max((row["val_top1"] for row in history if "val_top1" in row), default=None),
        "last_top1": history[-1].get("val_top1") if history else None,
        "images_per_s": history[-1]["images_per_s"] if history else None,
        "machine": machine(job.process),
    }
    if run:
        if result is not None:
            summary["last"] = result.as_dict(job.source.class_names)
        run.save_summary(summary)
        draw_curves(history, run.path / CURVES, title=f"{job.recipe.model} on {job.recipe.data}")
        write_events(run.path, history)
    return summary


def write_events(path: Path, history: list[dict[str, Any]]) -> None:
    """The metrics as TensorBoard events under `path`/tensorboard, replacing older ones."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, needed once

    folder = path / "tensorboard"
    for old in folder.glob("events.*") if folder.is_dir() else ():
        old.unlink()
    with SummaryWriter(str(folder)) as writer:
        for row in history:
            for name, value in row.items():
                if name != "epoch":
                    writer.add_scalar(name, value, row["epoch"])


def machine(process: Process) -> dict[str, Any]:
    """What the figures were measured on."""
    cuda = process.device.type == "cuda"
    return {
        "device": torch.cuda.get_device_name(process.device)
        if cuda
        else platform.processor() or platform.machine(),
        "cpu_threads": torch.get_num_threads(),
        "processes": process.world_size,
        "torch": torch.__version__,
        "timm": timm.__version__,
        "python": platform.python_version(),
    }
