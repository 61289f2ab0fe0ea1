"""Arithmetic of an optimizer step: loss and gradients of a batch, update of the weights."""

import torch
from torch import Tensor, nn

from igcv.machine.precision import autocast
from igcv.training.balance import cross_entropy
from igcv.training.trainer import Trainer


def batch_loss(t: Trainer, images: Tensor, targets: Tensor) -> Tensor:
    """Return the mean loss of a batch, on the device.

    Args:
        t: the objects to train with.
        images: network input, (N, 3, S, S).
        targets: labels (N,), or class shares (N, classes) of mixed images.
    """
    with autocast(t.process.device, t.recipe.precision):
        logits = t.model(images)
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    return cross_entropy(logits, targets, t.recipe.label_smoothing, t.class_weights, t.mix is not None)


def accumulate_gradients(t: Trainer, loss: Tensor) -> None:
    """Add the gradients of the loss of a micro-batch to those of the step."""
    t.scaler.scale(loss / t.recipe.accumulation).backward()


def update_weights(t: Trainer) -> None:
    """Update the weights with the accumulated gradients, and delete the gradients."""
    if t.recipe.clip_grad_norm:
        t.scaler.unscale_(t.optimizer)
        nn.utils.clip_grad_norm_(t.network.parameters(), t.recipe.clip_grad_norm)
    t.scaler.step(t.optimizer)
    t.scaler.update()
    t.optimizer.zero_grad(set_to_none=True)
