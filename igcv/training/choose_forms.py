"""Choice of the block forms for a training: the recipe's, or the fastest by measurement."""

from collections.abc import Callable
from dataclasses import replace
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn

from igcv.machine.precision import autocast
from igcv.machine.processes import from_main, together
from igcv.machine.timing import left_as_it_was, now, once_for_each
from igcv.models import block_kind, blocks_with_forms, set_form
from igcv.training.job import Job
from igcv.training.memory import explained
from igcv.training.state import State
from igcv.training.trainer import Form, Trainer

REPEATS = 5  # timed steps per form; the fastest form has the smallest median


def choose_forms(job: Job, trainer: Trainer, state: State) -> Trainer:
    """Return `trainer` with block forms for every image size of the run, and set the forms for input_size.

    The forms are the recipe's. With form="measure", they are the fastest forms on rank 0, measured for all sizes before
    the first epoch. A resumed run keeps its measured forms, so its results stay bitwise identical.
    """
    recipe = job.recipe
    forms: dict[int, Form] = dict.fromkeys(recipe.sizes, recipe.form)
    if recipe.form == "measure":
        kept = state.scalars.get("measured_forms", {})
        for size in forms:
            forms[size] = kept.get(str(size)) or state.scalars.get("forms") or measured(job, trainer, size)
    trainer = replace(trainer, forms=forms)
    trainer.use_forms(recipe.input_size)
    return trainer


def measured(job: Job, trainer: Trainer, size: int) -> dict[str, str]:
    """Return the fastest forms on rank 0 for images of `size` pixels."""
    with together(), explained(job, trainer.network, job.batch_size):
        forms = measured_forms(job, trainer.network, size)
    return from_main(forms)


def measured_forms(job: Job, network: nn.Module, size: int) -> dict[str, str]:
    """Return the fastest forms for the batches of this run, with images of `size` pixels."""
    return measure_forms(network, example_images(job, size), job.recipe.precision)


def measure_forms(network: nn.Module, images: Tensor, precision: str = "float32") -> dict[str, str]:
    """Return the fastest form of each block on the network's device, for batches like `images`.

    The forms of each distinct block (same layers, same input) alternately run a forward and backward pass. The
    network's weights and running statistics do not change. Its forms are "literal" afterwards.

    Args:
        network: a network in training mode, on the device of `images`.
        images: a batch as in training, shape (N, 3, S, S).
        precision: "float32", "bf16" or "fp16".

    Returns:
        The form of each block by name, for `igcv.models.set_form`.
    """
    set_form(network, "literal")
    blocks = blocks_with_forms(network)
    with left_as_it_was(network):
        inputs = _inputs(network, blocks, images, precision)
        kinds = {name: (block_kind(block), inputs[name].shape) for name, block in blocks.items()}
        return once_for_each(kinds, lambda name: _fastest(blocks[name], inputs[name], precision))


def _inputs(
    network: nn.Module, blocks: dict[str, nn.Module], images: Tensor, precision: str
) -> dict[str, Tensor]:
    """Return the input of each block in a forward pass, by name."""
    inputs: dict[str, Tensor] = {}

    def keep(name: str) -> Callable[[nn.Module, tuple[Tensor, ...]], None]:
        return lambda block, arguments: inputs.update({name: arguments[0].detach()})

    hooks = [block.register_forward_pre_hook(keep(name)) for name, block in blocks.items()]
    with torch.no_grad(), autocast(images.device, precision):
        network(images)
    for hook in hooks:
        hook.remove()
    return inputs


def _fastest(block: Any, x: Tensor, precision: str) -> str:
    """Return the form with the smallest median time of a forward and backward pass."""
    x = x.requires_grad_()
    times: dict[str, list[float]] = {form: [] for form in block.forms}
    for _ in range(REPEATS + 1):
        for form, measured in times.items():
            block.form = form
            start = now(x.device)
            with autocast(x.device, precision):
                out = block(x)
            out.backward(torch.ones_like(out))
            measured.append(now(x.device) - start)
    block.form = "literal"
    block.zero_grad(set_to_none=True)
    return min(times, key=lambda form: median(times[form][1:]))  # the first pass is a warm-up


def example_images(job: Job, size: int) -> Tensor:
    """Return a batch of noise with the batch size and layout of this run, with images of `size` pixels."""
    shape = (job.batch_size, 3, size, size)
    images = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(job.process.device)
    layout = torch.channels_last if job.recipe.channels_last else torch.contiguous_format
    return images.to(memory_format=layout)
