"""Optimizer steps as CUDA graphs.

A GPU computes the kernels of a small network on small images faster than Python can queue them one by one. A CUDA graph
holds all kernels of a step (forward, backward, optimizer, moving average) and queues them at once.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from igcv.training.recipe import Recipe
from igcv.training.step import accumulate_gradients, batch_loss, update_weights
from igcv.training.trainer import Trainer

WARM_UP = 3  # steps without a graph: they create the tensors that a graph updates, and choose the kernels


def hindrance(recipe: Recipe, device: torch.device, processes: int) -> str:
    """Return the reason why the steps of a recipe cannot be CUDA graphs, with a fix; empty if they can."""
    if device.type != "cuda":
        return "the device is not an NVIDIA GPU. Train on one"
    if processes > 1:
        return f"{processes} processes exchange gradients in each step. Train in one process"
    if recipe.precision == "fp16":
        return "precision = fp16 adapts its loss scale in Python. Give precision=bf16"
    if recipe.decay_rule == "mxnet":
        return "decay_rule = mxnet rescales the momentum in Python. Give decay_rule=weights"
    if recipe.optimizer != "sgd":
        return f"optimizer = {recipe.optimizer} counts its steps in Python. Give optimizer=sgd"
    if recipe.accumulation > 1:
        return f"accumulation = {recipe.accumulation}, and a graph holds a whole step. Give accumulation=1"
    return ""


@dataclass(frozen=True)
class Graph:
    """A captured step, and the tensors that it reads and writes."""

    graph: torch.cuda.CUDAGraph
    images: Tensor
    targets: Tensor
    rates: list[Tensor]  # learning rate of each parameter group
    new: Tensor  # share of the new weights in the moving average, 1 - decay
    loss: Tensor

    def replay(self, t: Trainer, images: Tensor, targets: Tensor, step: int) -> Tensor:
        """Queue a step with other images; return the loss, which the next step overwrites."""
        self.images.copy_(images)
        self.targets.copy_(targets)
        for rate, group in zip(self.rates, t.optimizer.param_groups, strict=True):
            rate.fill_(group["lr"])
        if t.ema is not None:
            self.new.fill_(1 - t.ema.get_decay(step))
        self.graph.replay()
        return self.loss


def round_rates(optimizer: torch.optim.Optimizer) -> None:
    """Round the learning rates to float32, as graphs hold them, so that all steps use the same rates."""
    for group in optimizer.param_groups:
        group["lr"] = torch.tensor(group["lr"], dtype=torch.float32).item()


def graph_step(t: Trainer, images: Tensor, targets: Tensor, step: int) -> Tensor | None:
    """Queue a whole optimizer step as a CUDA graph.

    Args:
        t: the objects to train with, with `graphs`.
        images: network input, (N, 3, S, S).
        targets: labels (N,), or class shares (N, classes).
        step: number of the step in the run, from 0.

    Returns:
        The mean loss, on the device. None for the first batches of a shape: the caller must take these steps itself.
    """
    assert t.graphs is not None
    key = images.shape, targets.shape, t.network.stem.training  # type: ignore[union-attr]
    found = t.graphs.get(key, 0)
    if isinstance(found, int) and found < WARM_UP:
        t.graphs[key] = found + 1
        return None
    if isinstance(found, int):
        found = t.graphs[key] = capture(t, images, targets)
    return found.replay(t, images, targets, step)


def capture(t: Trainer, images: Tensor, targets: Tensor) -> Graph:
    """Capture a step for batches of the same shapes, without taking it."""
    groups, device = t.optimizer.param_groups, t.process.device
    images, targets = images.clone(), targets.clone()
    rates, new = [torch.zeros((), device=device) for _ in groups], torch.zeros((), device=device)
    numbers = [group["lr"] for group in groups]
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):  # other threads pin memory
        loss = batch_loss(t, images, targets)
        accumulate_gradients(t, loss)
        for group, rate in zip(groups, rates, strict=True):
            group["lr"] = rate  # a number would be a constant of the graph
        t.optimizer.found_inf = (~loss.isfinite()).float()  # type: ignore[attr-defined]  # 1: no update
        update_weights(t)
        if t.ema is not None:
            update_average(t, new)
    del t.optimizer.found_inf  # type: ignore[attr-defined]
    for group, number in zip(groups, numbers, strict=True):
        group["lr"] = number
    return Graph(graph, images, targets, rates, new, loss.detach())


@torch.no_grad()
def update_average(t: Trainer, new: Tensor) -> None:
    """Update the moving average as timm does: average + new * (weights - average). Integers are copied.

    Args:
        t: the objects to train with, with `ema`.
        new: share of the new weights, 1 - decay, a scalar on the device.
    """
    assert t.ema is not None
    pairs = list(zip(t.ema.module.state_dict().values(), t.network.state_dict().values(), strict=True))
    averages, weights = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
    steps = torch._foreach_sub(weights, averages)
    torch._foreach_mul_(steps, new)
    torch._foreach_add_(averages, steps)
    for count, now in pairs:
        if not count.is_floating_point():
            count.copy_(now)
