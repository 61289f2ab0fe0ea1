"""The training loop: one epoch, for every device, precision and number of processes."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sized
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field
from typing import NamedTuple, Protocol

import torch
from timm.data import Mixup
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from igcv.data.chance import seed_global
from igcv.errors import InputError, SharedError
from igcv.machine.precision import autocast
from igcv.machine.processes import Process, highest
from igcv.models import set_form
from igcv.training.balance import cross_entropy
from igcv.training.nonfinite import first_nonfinite
from igcv.training.optimize import learning_rate, set_learning_rate
from igcv.training.recipe import Recipe
from igcv.training.reporter import Reporter
from igcv.training.state import EpochProgress

Form = str | dict[str, str]  # of all blocks, or of each by name


class Batches(Iterable[tuple[Tensor, Tensor]], Sized, Protocol):
    """Images (N, 3, S, S) and labels (N,) on the device, and how many batches."""


class NonFiniteError(InputError):
    """A loss is no finite number; `batch` is the batch of the epoch, from 0, that gave it."""

    def __init__(self, message: str, batch: int) -> None:
        super().__init__(message)
        self.batch = batch


@dataclass(frozen=True)
class Trainer:
    """All that an epoch needs, built before (see igcv.training.phases)."""

    recipe: Recipe
    network: nn.Module  # the weights
    model: nn.Module  # what runs: the network, in parallel with other processes
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    process: Process
    class_weights: Tensor | None = None  # of each class in the loss, (classes,); None: all 1
    forms: Mapping[int, Form] = field(default_factory=dict)  # by the side of the images in pixels

    def use_forms(self, size: int) -> dict[str, str]:
        """Compute the blocks as chosen for images of `size` pixels; return the form of each."""
        for module in [self.network] if self.ema is None else [self.ema.module, self.network]:
            used = set_form(module, self.forms[size])
        return used

    @property
    def evaluated(self) -> nn.Module:
        """What is evaluated and saved: the moving average, or the network itself."""
        return self.network if self.ema is None else self.ema.module


class Wish(NamedTuple):
    """What a process wants after a step; of all processes the highest numbers count."""

    save: int = 0  # 1: it is time to save
    signal: int = 0  # number of the signal that asks the run to end; 0: none


class Keeper(Protocol):
    """Who saves between two steps."""

    def wish(self) -> Wish:
        """What this process wants after the step."""

    def keep(self, progress: EpochProgress, wish: Wish) -> None:
        """Fulfill a wish."""


class NoKeeper:
    """Saves nothing."""

    def wish(self) -> Wish:
        return Wish()

    def keep(self, progress: EpochProgress, wish: Wish) -> None:
        raise AssertionError("nobody wished for anything")


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


def train_epoch(
    t: Trainer,
    batches: Batches,
    epoch: int,
    report: Reporter,
    begun: EpochProgress = EpochProgress(),
    keeper: Keeper = NoKeeper(),
) -> EpochProgress:
    """Train on what is left of an epoch, the parts of `recipe.accumulation` consecutive batches making one step.

    Args:
        t: what to train.
        batches: those that are left; their length is that of the whole epoch.
        epoch: which one, from 0.
        report: where to say how it is going.
        begun: how far the epoch had come.
        keeper: asked after each step.

    Returns:
        What the whole epoch measured.

    Raises:
        NonFiniteError: a loss is no finite number.
        InputError: the steps of half precision overflow again and again.
    """
    frozen = epoch < t.recipe.freeze
    set_training(t, frozen)
    steps, done = len(batches) // t.recipe.accumulation, begun
    scale = t.scaler.get_scale()
    with closing(batch for batch in batches) as left:
        for step in range(begun.steps, steps):
            lr = learning_rate(t.recipe, epoch + step / steps)
            set_learning_rate(t.optimizer, lr, t.recipe.decay_rule, frozen)
            seed_step(t, epoch, step)
            started = time.perf_counter()
            parts = list(_parts(t, left))
            nonfinite, *wish = highest(not all(part.finite for part in parts), *keeper.wish())
            if nonfinite and not t.scaler.is_enabled():
                raise _nonfinite(t, parts, epoch, step, lr)
            before, scale = scale, _update(t, epoch * steps + step)
            done = _further(done, parts, scale >= before, time.perf_counter() - started)
            if done.left_out > t.recipe.max_left_out:
                raise InputError(
                    f"{done.left_out} steps in a row overflowed half precision, up to epoch {epoch + 1}, step "
                    f"{step + 1}, learning rate {lr:.3g}; lower lr, or give precision=bf16 or a larger max_left_out"
                )
            report.step(epoch + 1, done.loss, done.images * t.process.world_size / done.time_s, lr)
            if any(wish):
                keeper.keep(done, Wish(*wish))
        next(left, None)  # lets loader processes end that are not needed any more
    return done


def set_training(t: Trainer, frozen: bool) -> None:
    """Put the network into training mode; of `frozen` layers the running statistics stay as they are."""
    t.model.train()
    if frozen:
        for name, module in t.network.named_children():
            module.train(name in ("drop", "classifier"))


def seed_step(t: Trainer, epoch: int, step: int) -> None:
    """Make what follows (mixing, dropout) depend on seed, epoch, process and step only.

    So it is the same however often a run was interrupted before.
    """
    seed_global(t.recipe.seed, epoch, t.process.rank, step, device=t.process.device)


class _Part(NamedTuple):
    """A part of a step, its gradients added to those before."""

    seen: int  # images
    loss: float  # their mean
    wait_s: float  # before they came
    images: Tensor | None  # what the network saw, of the last part and where the loss is not finite

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss)


def _parts(t: Trainer, left: Iterator[tuple[Tensor, Tensor]]) -> Iterator[_Part]:
    """The parts of the next step."""
    for part in range(t.recipe.accumulation):
        asked = time.perf_counter()
        images, labels = next(left)
        wait_s = time.perf_counter() - asked
        count, targets = len(labels), labels
        if t.mix is not None:
            even = count // 2 * 2  # it mixes pairs
            images, targets = t.mix(images[:even], labels[:even])
        last = part == t.recipe.accumulation - 1
        loss = _forward_backward(t, images, targets, last)
        yield _Part(count, loss, wait_s, None if math.isfinite(loss) and not last else images)


def _forward_backward(t: Trainer, images: Tensor, targets: Tensor, last: bool) -> float:
    """Add the gradients of one part to those of the step; returns the part's mean loss."""
    with _synchronise(t.model, last):
        with autocast(t.process.device, t.recipe.precision):
            logits = t.model(images)
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        loss = cross_entropy(logits, targets, t.recipe.label_smoothing, t.class_weights, t.mix is not None)
        value = _arriving(loss)
        t.scaler.scale(loss / t.recipe.accumulation).backward()
    return value()


def _arriving(loss: Tensor) -> Callable[[], float]:
    """The value of `loss`, to be asked for once more work is queued, so that a GPU need not idle meanwhile."""
    cuda = loss.device.type == "cuda"
    value = loss.detach().to("cpu", non_blocking=cuda)
    if not cuda:
        return value.item
    copied = torch.cuda.Event()
    copied.record(torch.cuda.current_stream(loss.device))

    def read() -> float:
        copied.synchronize()
        return value.item()

    return read


def _synchronise(model: nn.Module, last: bool) -> AbstractContextManager:
    """Processes exchange gradients with the last part of a step only."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def _update(t: Trainer, step: int) -> float:
    """Optimizer step number `step` of the run, with the gradients gathered so far.

    Returns:
        The scale of the loss (fp16), which is lowered when gradients are not finite and the step is left out.
    """
    if t.recipe.clip_grad_norm:
        t.scaler.unscale_(t.optimizer)
        nn.utils.clip_grad_norm_(t.network.parameters(), t.recipe.clip_grad_norm)
    t.scaler.step(t.optimizer)
    t.scaler.update()
    t.optimizer.zero_grad(set_to_none=True)
    if t.ema is not None:
        t.ema.update(t.network, step)
    return t.scaler.get_scale()


def _further(done: EpochProgress, parts: list[_Part], taken: bool, time_s: float) -> EpochProgress:
    """The progress after one more step."""
    return EpochProgress(
        steps=done.steps + 1,
        loss_sum=done.loss_sum + sum(part.loss * part.seen for part in parts if part.finite),
        images=done.images + sum(part.seen for part in parts),
        time_s=done.time_s + time_s,
        data_wait_s=done.data_wait_s + sum(part.wait_s for part in parts),
        left_out=0 if taken else done.left_out + 1,
    )


def _nonfinite(t: Trainer, parts: list[_Part], epoch: int, step: int, lr: float) -> InputError:
    """What to say when the loss of a part, perhaps of another process, is not finite; called in all processes."""
    number, part = next(((i, p) for i, p in enumerate(parts) if not p.finite), (-1, parts[-1]))
    assert part.images is not None
    with autocast(t.process.device, t.recipe.precision):
        first = first_nonfinite(t.network, part.images)
    if part.finite:
        return SharedError("the loss of another process is not finite")
    return NonFiniteError(
        f"the loss is {part.loss} at epoch {epoch + 1}, step {step + 1}, learning rate {lr:.3g}; the first numbers "
        f"that are not finite are in {first}; lower lr, or add warmup_epochs or clip_grad_norm, and go on from the "
        "last checkpoint with --resume",
        step * t.recipe.accumulation + number,
    )
