"""Optimizer and learning rate schedule of a recipe."""

import math
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import torch
from timm.models import group_parameters
from torch import nn

from igcv.training.recipe import Recipe

STAGE_RATE = 0.8  # factor on the learning rate from a stage to the previous one, in fine-tuning in stages


def parameter_groups(
    model: nn.Module, weight_decay: float, rule: str, in_stages: bool = False
) -> list[dict[str, Any]]:
    """Split the parameters into groups with and without weight decay.

    Args:
        model: the network.
        weight_decay: weight decay of the groups with decay.
        rule: "weights" decays tensors of two and more dimensions (convolutions, linear layers). "mxnet" also decays
            batch-norm scales, as MXNet decays all names *_weight and *_gamma (Optimizer.set_wd_mult). "all" decays
            every parameter.
        in_stages: also split by stage.

    Returns:
        Parameter groups for the optimizer. "lr_scale" is the factor on the learning rate, as in timm. "classifier" is
        True for the groups that train while other layers are frozen: all groups, unless `in_stages`.
    """
    stages = stages_of(model) if in_stages else {}
    last = max(stages.values(), default=0)
    groups: dict[tuple[int, bool], list[nn.Parameter]] = {
        (stage, decays): [] for stage in sorted({last, *stages.values()}) for decays in (True, False)
    }
    for name, parameter in model.named_parameters():
        decays = parameter.ndim > 1 or rule == "all" or (rule == "mxnet" and name.endswith("weight"))
        groups[stages.get(name, last), decays].append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": weight_decay if decays else 0.0,
            "lr_scale": STAGE_RATE ** (last - stage),
            "classifier": stage == last,
        }
        for (stage, decays), parameters in groups.items()
    ]


def stages_of(model: nn.Module) -> dict[str, int]:
    """Return the stage of each parameter by name: 0 for the stem, then the stages, the head, and the classifier."""
    stages = group_parameters(model, model.group_matcher(coarse=True), reverse=True)  # type: ignore[operator]
    last = max(stages.values()) + 1
    return {name: last if name.startswith("classifier.") else stage for name, stage in stages.items()}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Return the recipe's optimizer for the parameters of `model`."""
    groups = parameter_groups(model, recipe.weight_decay, recipe.decay_rule, in_stages=recipe.freeze > 0)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.lr, betas=(recipe.momentum, 0.999))
    nesterov = recipe.nesterov and recipe.momentum > 0
    # In fp16, fused SGD would leave its momentum undefined if the first step overflowed.
    fused = next(model.parameters()).device.type == "cuda" and recipe.precision != "fp16"
    return torch.optim.SGD(groups, lr=recipe.lr, momentum=recipe.momentum, nesterov=nesterov, fused=fused)


def set_learning_rate(
    optimizer: torch.optim.Optimizer, lr: float, decay_rule: str, frozen: bool = False
) -> None:
    """Set the learning rate of all groups; with `frozen`, only the classifier's is not zero.

    MXNet's momentum accumulates steps, m = 0.9 m - lr g; PyTorch's accumulates gradients. In MXNet, a new learning rate
    thus affects new gradients only. The "mxnet" rule rescales the buffers to give the same arithmetic.
    """
    for group in optimizer.param_groups:
        rate = 0.0 if frozen and not group["classifier"] else lr * group["lr_scale"]
        if decay_rule == "mxnet" and rate > 0 and group["lr"] != rate:
            for parameter in group["params"]:
                buffer = optimizer.state.get(parameter, {}).get("momentum_buffer")
                if buffer is not None:
                    buffer.mul_(group["lr"] / rate)
        group["lr"] = rate


# Factor on the peak learning rate at a fractional epoch, without warm-up.
SCHEDULES: dict[str, Callable[[Recipe, float], float]] = {
    "constant": lambda recipe, epoch: 1.0,
    "exponential": lambda recipe, epoch: recipe.lr_factor ** math.floor(epoch),
    "step": lambda recipe, epoch: recipe.lr_factor ** bisect_right(sorted(recipe.lr_step_epochs), epoch),
    "cosine": lambda recipe, epoch: _cosine(recipe, epoch),
}


def _cosine(recipe: Recipe, epoch: float) -> float:
    length = max(recipe.epochs - recipe.warmup_epochs, 1e-9)
    done = min(max(epoch - recipe.warmup_epochs, 0.0) / length, 1.0)
    floor = recipe.min_lr / recipe.lr if recipe.lr else 0.0
    return floor + (1 - floor) * (1 + math.cos(math.pi * done)) / 2


def learning_rate(recipe: Recipe, epoch: float) -> float:
    """Return the learning rate at a fractional epoch; 1.5 is the middle of the second epoch."""
    warmup = min(1.0, epoch / recipe.warmup_epochs) if recipe.warmup_epochs else 1.0
    return recipe.lr * warmup * SCHEDULES[recipe.schedule](recipe, epoch)
