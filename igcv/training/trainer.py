"""The objects that a training step needs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from timm.utils import ModelEmaV3
from torch import Tensor, nn

from igcv.machine.processes import Process
from igcv.models import set_form
from igcv.training.recipe import Recipe

Form = str | dict[str, str]  # form of all blocks, or of each block by name


@dataclass(frozen=True)
class Trainer:
    """Objects that an epoch of training needs."""

    recipe: Recipe
    network: nn.Module  # the module with the weights
    model: nn.Module  # the module to call: the network, wrapped for several processes
    optimizer: torch.optim.Optimizer
    scaler: torch.amp.GradScaler
    ema: ModelEmaV3 | None
    mix: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None
    process: Process
    class_weights: Tensor | None = None  # weight of each class in the loss, (classes,); None: all 1
    forms: Mapping[int, Form] = field(default_factory=dict)  # block forms by image side in pixels
    graphs: dict[Any, Any] | None = None  # steps as CUDA graphs (see igcv.training.graphs); None: no graphs

    def use_forms(self, size: int) -> dict[str, str]:
        """Set the block forms for images of `size` pixels, and drop captured steps; return the form of each block."""
        for module in [self.network] if self.ema is None else [self.ema.module, self.network]:
            used = set_form(module, self.forms[size])
        if self.graphs is not None:
            self.graphs.clear()
        return used

    @property
    def evaluated(self) -> nn.Module:
        """The module to evaluate and save: the EMA, or the network without EMA."""
        return self.network if self.ema is None else self.ema.module
