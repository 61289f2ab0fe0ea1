"""What a training starts with: network, precision, optimizer, moving average."""

from dataclasses import replace

import torch
from timm.utils import ModelEmaV3
from torch import Tensor

from igcv.machine.precision import autocast, choose_precision
from igcv.machine.processes import from_main, together
from igcv.models import Network, build_model, set_form
from igcv.training.balance import class_weights
from igcv.training.choose_forms import example_images
from igcv.training.job import Job
from igcv.training.loop import Trainer, make_mix
from igcv.training.memory import explained
from igcv.training.optimize import make_optimizer
from igcv.weights.files import fill

CLASSIFIER = "classifier."  # how the names of its weights begin


def start_network(job: Job) -> Network:
    """Return the recipe's network on the device, initialized at random or with the weights to start from."""
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
    """Return the weights to start from, with a classifier for the classes of the data.

    Its rows are those of the same classes, or the fresh ones of `network` where the classes are others.
    """
    assert job.start is not None
    tensors, fresh = job.start.model.state_dict(), network.state_dict()
    if job.start_labels is not None:
        rows = torch.tensor(job.start_labels)
        return {name: x[rows] if name.startswith(CLASSIFIER) else x for name, x in tensors.items()}
    return {name: fresh.get(name, x) if name.startswith(CLASSIFIER) else x for name, x in tensors.items()}


def resolve_precision(job: Job, network: Network) -> Job:
    """Return `job` with precision "auto" replaced by what the first process measures to be faster."""
    recipe = job.recipe
    if recipe.precision != "auto":
        return job
    set_form(network, "auto" if recipe.form == "measure" else recipe.form)  # as in training, or close to it
    with together(), explained(job, network, job.batch_size):
        chosen = choose_precision(network, example_images(job, recipe.input_size))
    chosen = from_main(chosen)
    return replace(job, recipe=replace(recipe, precision=chosen.precision), why_precision=chosen.reason)


def make_trainer(job: Job, network: Network) -> Trainer:
    """Optimizer, moving average and the rest, fresh."""
    recipe, device = job.recipe, job.process.device
    optimizer = make_optimizer(network, recipe)
    ema = ModelEmaV3(network, decay=recipe.ema_decay, use_warmup=True) if recipe.ema_decay else None
    scaler = torch.amp.GradScaler(device.type, enabled=recipe.precision == "fp16")
    if recipe.compile:
        network.compile()
    mix = make_mix(recipe, len(job.source.class_names))
    weights = class_weights(recipe, job.source, device)
    return Trainer(recipe, network, network, optimizer, scaler, ema, mix, job.process, weights)


def lay_out_gradients(job: Job, trainer: Trainer) -> None:
    """Let DDP put the gradients in the order in which it will exchange them; nothing is learned.

    It finds that order in its first backward passes, and with three processes and more the order decides how sums
    are rounded: without this, a run that goes on would not repeat one that was never stopped.
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
