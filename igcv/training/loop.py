"""The training loop: one epoch, for every device, precision and number of processes."""

import time
from collections.abc import Callable, Iterable, Sized
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Protocol

import torch
import torch.nn.functional as F
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from igcv.errors import InputError
from igcv.training.evaluate import autocast
from igcv.training.optimize import learning_rate, set_learning_rate
from igcv.training.progress import Reporter
from igcv.training.recipe import Recipe

SHOW_EVERY = 20  # steps between readings of the loss, each of which waits for the device


class Batches(Iterable[tuple[Tensor, Tensor]], Sized, Protocol):
    """Images (N, 3, S, S) and labels (N,) on the device, and how many batches."""


@dataclass(frozen=True)
class Trainer:
    """All that an epoch needs, built before (see igcv.training.train)."""

    recipe: Recipe
    network: nn.Module  # the weights
    model: nn.Module  # what runs: the network, in parallel with other processes
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    device: torch.device
    world_size: int

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated and saved: the moving average, or the network itself."""
        return self.network if self.ema is None else self.ema.module


@dataclass(frozen=True)
class Epoch:
    """What an epoch of training measured."""

    loss: float  # mean over this process's images
    images: int  # of this process
    time_s: float
    data_wait_s: float  # of time_s, spent waiting for images


def make_mix(recipe: Recipe, num_classes: int) -> Mixup | None:
    """timm's mixup and cutmix, or None where the recipe asks for neither."""
    if not recipe.mixup and not recipe.cutmix:
        return None
    return Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        label_smoothing=recipe.label_smoothing,
        num_classes=num_classes,
    )


def train_epoch(t: Trainer, batches: Batches, epoch: int, report: Reporter) -> Epoch:
    """Train on all `batches`, the parts of `recipe.accumulation` consecutive ones making one step.

    Raises:
        InputError: when the loss is no longer a finite number.
    """
    t.model.train()
    parts = t.recipe.accumulation
    steps = len(batches) // parts
    total, seen, wait = torch.zeros((), device=t.device), 0, 0.0
    start = ready = time.perf_counter()
    for index, (images, labels) in enumerate(batches):
        if index >= steps * parts:
            break  # what is left does not fill a step
        wait += time.perf_counter() - ready
        step, part = divmod(index, parts)
        if part == 0:
            lr = learning_rate(t.recipe, epoch + step / steps)
            set_learning_rate(t.optimizer, lr, t.recipe.decay_rule)
        last = part == parts - 1
        loss = _forward_backward(t, images, labels, last)
        total += loss * len(labels)
        seen += len(labels)
        if last:
            _update(t, epoch * steps + step)
            if step % SHOW_EVERY == 0 or step == steps - 1:
                mean = _finite(total.item() / seen, epoch, step, lr)
            report.step(epoch + 1, mean, seen * t.world_size / (time.perf_counter() - start), lr)
        ready = time.perf_counter()
    return Epoch(total.item() / max(seen, 1), seen, time.perf_counter() - start, wait)


def _forward_backward(t: Trainer, images: Tensor, labels: Tensor, last: bool) -> Tensor:
    """Add the gradients of one part to those of the step; returns the part's mean loss, detached."""
    targets = labels
    if t.mix is not None:
        even = len(labels) // 2 * 2  # it mixes pairs
        images, targets = t.mix(images[:even], labels[:even])
    smoothing = 0.0 if t.mix is not None else t.recipe.label_smoothing  # the mix smooths its own targets
    with _synchronise(t.model, last):
        with autocast(t.device, t.recipe.precision):
            logits = t.model(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = F.cross_entropy(logits, targets, label_smoothing=smoothing)
        t.scaler.scale(loss / t.recipe.accumulation).backward()
    return loss.detach()


def _synchronise(model: nn.Module, last: bool) -> AbstractContextManager:
    """Processes exchange gradients with the last part of a step only."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def _update(t: Trainer, step: int) -> None:
    """Optimizer step number `step` of the run, with the gradients gathered so far."""
    if t.recipe.clip_grad_norm:
        t.scaler.unscale_(t.optimizer)
        nn.utils.clip_grad_norm_(t.network.parameters(), t.recipe.clip_grad_norm)
    t.scaler.step(t.optimizer)
    t.scaler.update()
    t.optimizer.zero_grad(set_to_none=True)
    if t.ema is not None:
        t.ema.update(t.network, step)


def _finite(loss: float, epoch: int, step: int, lr: float) -> float:
    """`loss`, unless it is no number any more."""
    if loss != loss or loss in (float("inf"), float("-inf")):
        raise InputError(
            f"the loss is {loss} at epoch {epoch + 1}, step {step + 1}, learning rate {lr:.3g}; "
            "lower lr, or add warmup_epochs or clip_grad_norm; the last good weights are in the run folder"
        )
    return loss
