"""Training loop of one epoch, for every device, precision and number of processes."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sized
from contextlib import AbstractContextManager, closing, nullcontext
from typing import NamedTuple, Protocol

import torch
from timm.data import Mixup
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from igcv.data.chance import seed_global
from igcv.errors import InputError, SharedError
from igcv.machine.precision import autocast
from igcv.machine.processes import highest
from igcv.training.graphs import graph_step, round_rates, update_average
from igcv.training.nonfinite import first_nonfinite
from igcv.training.optimize import learning_rate, set_learning_rate
from igcv.training.recipe import Recipe
from igcv.training.reporter import Reporter
from igcv.training.state import EpochProgress
from igcv.training.step import accumulate_gradients, batch_loss, update_weights
from igcv.training.trainer import Trainer


class Batches(Iterable[tuple[Tensor, Tensor]], Sized, Protocol):
    """Batches of images (N, 3, S, S) and labels (N,) on the device, with a known number of batches."""


class NonFiniteError(InputError):
    """Non-finite loss in batch number `batch` (from 0) of an epoch."""

    def __init__(self, message: str, batch: int) -> None:
        super().__init__(message)
        self.batch = batch


class Wish(NamedTuple):
    """Requests of a process after a step; the maximum over all processes takes effect."""

    save: int = 0  # 1: a save is due
    signal: int = 0  # number of the signal that ends the run; 0: none


class Keeper(Protocol):
    """Protocol of objects that save between two steps."""

    def wish(self) -> Wish:
        """Return the wish of this process after a step."""

    def keep(self, progress: EpochProgress, wish: Wish) -> None:
        """Fulfill a wish."""


class NoKeeper:
    """Keeper that never saves."""

    def wish(self) -> Wish:
        return Wish()

    def keep(self, progress: EpochProgress, wish: Wish) -> None:
        raise AssertionError("no save was requested")


def make_mix(recipe: Recipe, num_classes: int) -> Mixup | None:
    """Return timm's mixup and cutmix; None if the recipe uses neither."""
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
    """Train the remaining steps of an epoch; `recipe.accumulation` consecutive batches form one step.

    Args:
        t: the objects to train with.
        batches: the remaining batches; their length is that of the whole epoch.
        epoch: number of the epoch, from 0.
        report: receives the progress.
        begun: progress in the epoch so far.
        keeper: saves after a step if necessary.

    Returns:
        The measurements of the whole epoch.

    Raises:
        NonFiniteError: the loss is not finite.
        InputError: more than max_left_out consecutive steps overflow in half precision.
    """
    frozen = epoch < t.recipe.freeze
    set_training(t, frozen)
    steps, done = len(batches) // t.recipe.accumulation, begun
    scale = t.scaler.get_scale()
    with closing(batch for batch in batches) as left:
        for step in range(begun.steps, steps):
            lr = learning_rate(t.recipe, epoch + step / steps)
            set_learning_rate(t.optimizer, lr, t.recipe.decay_rule, frozen)
            if t.graphs is not None:
                round_rates(t.optimizer)
            seed_step(t, epoch, step)
            started = time.perf_counter()
            number = epoch * steps + step
            parts = list(_parts(t, left, number))
            nonfinite, *wish = highest(not all(part.finite for part in parts), *keeper.wish())
            if nonfinite and not t.scaler.is_enabled():
                raise _nonfinite(t, parts, epoch, step, lr)
            before, scale = scale, scale if parts[-1].taken else _update(t, number)
            done = _further(done, parts, scale >= before, time.perf_counter() - started)
            if done.left_out > t.recipe.max_left_out:
                raise InputError(
                    f"{done.left_out} consecutive steps overflowed half precision, up to epoch {epoch + 1}, step "
                    f"{step + 1}, learning rate {lr:.3g}. Lower lr, or give precision=bf16 or a larger max_left_out"
                )
            report.step(epoch + 1, done.loss, done.images * t.process.world_size / done.time_s, lr)
            if any(wish):
                keeper.keep(done, Wish(*wish))
        next(left, None)  # lets the data-loading workers end
    return done


def set_training(t: Trainer, frozen: bool) -> None:
    """Set the network to training mode; with `frozen`, only the classifier, so running statistics do not change."""
    t.model.train()
    if frozen:
        for name, module in t.network.named_children():
            module.train(name in ("drop", "classifier"))


def seed_step(t: Trainer, epoch: int, step: int) -> None:
    """Seed the random generators from seed, epoch, process and step.

    Mixing and dropout are then the same in interrupted and uninterrupted runs.
    """
    seed_global(t.recipe.seed, epoch, t.process.rank, step, device=t.process.device)


class _Part(NamedTuple):
    """A micro-batch of a step, with its gradients accumulated."""

    seen: int  # number of images
    loss: float  # mean loss of the images
    wait_s: float  # seconds of waiting for the images
    images: Tensor | None  # network input; kept for the last micro-batch or a non-finite loss only
    taken: bool  # whether the optimizer step is already taken, as part of a CUDA graph

    @property
    def finite(self) -> bool:
        return math.isfinite(self.loss)


def _parts(t: Trainer, left: Iterator[tuple[Tensor, Tensor]], number: int) -> Iterator[_Part]:
    """Yield the micro-batches of the next step, which has this number in the run."""
    for part in range(t.recipe.accumulation):
        asked = time.perf_counter()
        images, labels = next(left)
        wait_s = time.perf_counter() - asked
        count, targets = len(labels), labels
        if t.mix is not None:
            even = count // 2 * 2  # timm mixes pairs
            images, targets = t.mix(images[:even], labels[:even])
        last = part == t.recipe.accumulation - 1
        whole = None if t.graphs is None else graph_step(t, images, targets, number)
        loss = _forward_backward(t, images, targets, last) if whole is None else _arriving(whole)()
        kept = None if math.isfinite(loss) and not last else images
        yield _Part(count, loss, wait_s, kept, whole is not None)


def _forward_backward(t: Trainer, images: Tensor, targets: Tensor, last: bool) -> float:
    """Accumulate the gradients of a micro-batch; return its mean loss."""
    with _synchronise(t.model, last):
        loss = batch_loss(t, images, targets)
        value = _arriving(loss)
        accumulate_gradients(t, loss)
    return value()


def _synchronise(model: nn.Module, last: bool) -> AbstractContextManager:
    """Return a context in which processes exchange gradients for the last micro-batch of a step only."""
    return model.no_sync() if isinstance(model, DistributedDataParallel) and not last else nullcontext()


def _arriving(loss: Tensor) -> Callable[[], float]:
    """Return a function that reads `loss`; call it after queuing more work, to keep a GPU busy."""
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


def _update(t: Trainer, step: int) -> float:
    """Update weights and moving average in optimizer step number `step` of the run.

    Returns:
        The loss scale (fp16), which decreases if gradients are not finite and the step is skipped.
    """
    update_weights(t)
    if t.ema is not None and t.graphs is None:
        t.ema.update(t.network, step)
    elif t.ema is not None:  # with the same rounding as in a graph, so that resumed runs are equal
        update_average(t, torch.tensor(1 - t.ema.get_decay(step), device=t.process.device))
    return t.scaler.get_scale()


def _further(done: EpochProgress, parts: list[_Part], taken: bool, time_s: float) -> EpochProgress:
    """Return the progress after one more step."""
    return EpochProgress(
        steps=done.steps + 1,
        loss_sum=done.loss_sum + sum(part.loss * part.seen for part in parts if part.finite),
        images=done.images + sum(part.seen for part in parts),
        time_s=done.time_s + time_s,
        data_wait_s=done.data_wait_s + sum(part.wait_s for part in parts),
        left_out=0 if taken else done.left_out + 1,
    )


def _nonfinite(t: Trainer, parts: list[_Part], epoch: int, step: int, lr: float) -> InputError:
    """Return the error for a non-finite loss in any process; all processes must call this function."""
    number, part = next(((i, p) for i, p in enumerate(parts) if not p.finite), (-1, parts[-1]))
    assert part.images is not None
    with autocast(t.process.device, t.recipe.precision):
        first = first_nonfinite(t.network, part.images)
    if part.finite:
        return SharedError("non-finite loss in another process")
    return NonFiniteError(
        f"non-finite loss ({part.loss}) at epoch {epoch + 1}, step {step + 1}, learning rate {lr:.3g}; first "
        f"non-finite values: {first}. Lower lr, or add warmup_epochs or clip_grad_norm. Then resume from the last "
        "checkpoint with --resume",
        step * t.recipe.accumulation + number,
    )
