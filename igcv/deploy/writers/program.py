"""Programs of torch.export."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igcv.deploy.writers.settings import ExportSettings


def write_program(
    network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a folded network as a program of torch.export.

    Args: those of `igcv.deploy.writers.onnx.write_onnx`.
    """
    dims: dict[int, Any] = {0: torch.export.Dim.DYNAMIC}
    if settings.dynamic_size:
        first = 1 if settings.with_preprocessing else 2
        dims |= {first: torch.export.Dim.DYNAMIC, first + 1: torch.export.Dim.DYNAMIC}
    examples = torch.cat([example, example])  # with one image, the batch would be taken to be always one
    program = torch.export.export(network, (examples,), dynamic_shapes=(dims,))
    torch.export.save(program, path, extra_files=dict(metadata))
