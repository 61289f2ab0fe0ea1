"""Writer of torch.export programs."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igcv.deploy.writers.settings import ExportSettings


def write_program(
    network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a folded network as a torch.export program.

    `igcv.deploy.writers.onnx.write_onnx` describes the arguments.
    """
    dims: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if settings.dynamic_size:
        first = 1 if settings.with_preprocessing else 2
        dims |= {first: torch.export.Dim.DYNAMIC, first + 1: torch.export.Dim.DYNAMIC}
    examples = torch.cat([example, example])  # torch.export would fix a batch size of 1
    program = torch.export.export(network, (examples,), dynamic_shapes=(dims,))
    torch.export.save(program, path, extra_files=dict(metadata))
