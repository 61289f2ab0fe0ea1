"""Initial objects of a training: network, precision, optimizer, EMA."""

from dataclasses import replace
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from igcv.machine.precision import autocast, choose_precision
from igcv.machine.processes import from_main, together
from igcv.models import Network, build_model, set_form
from igcv.training.balance import class_weights
from igcv.training.choose_forms import example_images
from igcv.training.job import Job
from igcv.training.loop import make_mix
from igcv.training.memory import explained
from igcv.training.optimize import make_optimizer
from igcv.training.trainer import Trainer
from igcv.weights.files import fill

CLASSIFIER = "classifier."  # prefix of the classifier's weight names


def start_network(job: Job) -> Network:
    """Return the recipe's network on the device, with random initialization or the initial weights."""
    recipe, classes = job.recipe, len(job.source.class_names)
    network = build_model(
        recipe.model,
        classes,
        recipe.multiplier,
        recipe.input_size,
        drop_rate=recipe.drop_rate,
        strides=recipe.strides,
    )
    if job.start is not None:
        fill(network, start_tensors(job, network), f"{recipe.init_from} ({job.start.card.model})")
    layout = torch.channels_last if recipe.channels_last else torch.contiguous_format
    return network.to(job.process.device, memory_format=layout)  # type: ignore[call-overload]


def start_tensors(job: Job, network: Network) -> dict[str, Tensor]:
    """Return the initial weights, with a classifier for the classes of the data.

    The classifier has the trained rows of the same classes. If the classes differ, it has the random rows of `network`.
    """
    assert job.start is not None
    tensors, fresh = job.start.model.state_dict(), network.state_dict()
    if job.start_labels is not None:
        rows = torch.tensor(job.start_labels)
        return {name: x[rows] if name.startswith(CLASSIFIER) else x for name, x in tensors.items()}
    return {name: fresh.get(name, x) if name.startswith(CLASSIFIER) else x for name, x in tensors.items()}


def resolve_precision(job: Job, network: Network) -> Job:
    """Return `job` with precision "auto" replaced by the precision that is faster on rank 0."""
    recipe = job.recipe
    if recipe.precision != "auto":
        return job
    set_form(
        network, "auto" if recipe.form == "measure" else recipe.form
    )  # same or similar forms as in training
    with together(), explained(job, network, job.batch_size):
        chosen = choose_precision(network, example_images(job, recipe.input_size))
    chosen = from_main(chosen)
    return replace(job, recipe=replace(recipe, precision=chosen.precision), why_precision=chosen.reason)


def make_trainer(job: Job, network: Network) -> Trainer:
    """Return a trainer with a new optimizer, EMA, loss scaler and mixing."""
    recipe, device = job.recipe, job.process.device
    optimizer = make_optimizer(network, recipe)
    ema = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    if recipe.compile:
        network.compile()
    mix = make_mix(recipe, len(job.source.class_names))
    weights = class_weights(recipe, job.source, device)
    graphs: dict[Any, Any] | None = {} if job.graphs else None
    return Trainer(
        *(recipe, network, network, optimizer, scaler, ema, mix, job.process, weights), graphs=graphs
    )


def lay_out_gradients(job: Job, trainer: Trainer) -> None:
    """Let DDP determine its order of gradient exchange before the first step, without training.

    DDP determines the order in its first backward passes. With three or more processes, the order affects rounding. A
    resumed run would otherwise differ from an uninterrupted run.
    """
    buffers = {name: buffer.clone() for name, buffer in trainer.network.named_buffers()}
    trainer.model.train()
    for _ in range(2):
        with autocast(job.process.device, job.recipe.precision):
            logits = trainer.model(example_images(job, job.recipe.input_size))
        logits.float().square().mean().backward()
    trainer.optimizer.zero_grad(set_to_none=True)
    for name, buffer in trainer.network.named_buffers():
        buffer.copy_(buffers[name])
