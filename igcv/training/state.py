"""Where a run stands: all that it needs to go on, as flat tensors and plain values, and as a file.

Random states are not among it: whatever chance decides follows from the seed and from where the run is (epoch, step,
image, process), so that to know the place is to know the numbers.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save
from torch import Tensor

from igcv.errors import InputError
from igcv.weights import on_cpu, read_tensors

_PLAIN, _DIGEST = "state", "sha256"  # keys in the file's metadata


@dataclass(frozen=True)
class EpochProgress:
    """How far an epoch has come, and what it measured until there, in one process."""

    steps: int = 0  # optimizer steps done
    loss_sum: float = 0.0  # over the images
    images: int = 0
    time_s: float = 0.0
    data_wait_s: float = 0.0  # of time_s, spent waiting for images
    left_out: int = 0  # the last steps in a row that were not taken because their gradients overflowed (fp16)

    @property
    def loss(self) -> float:
        """Mean over the images."""
        return self.loss_sum / max(self.images, 1)


def combined(parts: Sequence[EpochProgress]) -> EpochProgress:
    """What all processes measured together; the times are the first one's."""
    first = parts[0]
    return EpochProgress(
        first.steps,
        sum(part.loss_sum for part in parts),
        sum(part.images for part in parts),
        first.time_s,
        first.data_wait_s,
        first.left_out,
    )


@dataclass(frozen=True)
class State:
    """Where a run stands.

    Attributes:
        epoch: finished epochs.
        best: score of the best of them by the recipe's best_by (see igcv.report.run.score); None if there is none.
        batch_size: images in an optimizer step.
        progress: how far each process has come in the next epoch; empty between two epochs.
        bad: the images that could not be read, name -> reason.
        tensors: network, moving average and optimizer, flat; in an epoch the other processes' buffers, too.
        scalars: plain values of the optimizer and the loss scaler, and how the blocks are computed.
        note: why it is not the newest state in its folder; empty if it is.
    """

    epoch: int = 0
    best: float | None = None
    batch_size: int = 0
    progress: tuple[EpochProgress, ...] = ()
    bad: dict[str, str] = field(default_factory=dict)
    tensors: dict[str, Tensor] = field(default_factory=dict)
    scalars: dict[str, Any] = field(default_factory=dict)
    note: str = ""


def encode(state: State) -> bytes:
    """The state as a safetensors file with a digest of all that is in it.

    Raises:
        InputError: a number in it is not finite, so that nothing could go on from it.
    """
    tensors = on_cpu(state.tensors)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"{name} holds a number that is not finite after epoch {state.epoch}; lower lr, or add warmup_epochs "
                "or clip_grad_norm, and go on from the last checkpoint with --resume"
            )
    kept = ("epoch", "best", "batch_size", "bad", "scalars")
    values = {key: getattr(state, key) for key in kept} | {"progress": [asdict(p) for p in state.progress]}
    plain = json.dumps(values)
    return save(tensors, {_PLAIN: plain, _DIGEST: _digest(tensors, plain)})


def decode(path: Path) -> State:
    """The state in a file that `encode` made.

    Raises:
        InputError: the file is missing, cut short, damaged or something else.
    """
    tensors, metadata = read_tensors(path)
    try:
        plain = metadata[_PLAIN]
        if metadata[_DIGEST] != _digest(tensors, plain):
            raise ValueError("its digest does not fit")
        values = json.loads(plain)
        progress = tuple(EpochProgress(**part) for part in values.pop("progress"))
        if "best_top1" in values:  # of version 0.1.0 and before best_by, where -1 stood for none
            top1 = values.pop("best_top1")
            values["best"] = top1 if top1 >= 0 else None
        return State(**values, progress=progress, tensors=tensors)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(f"{path} is no whole state of a run ({error}); start the run anew") from error


def _digest(tensors: dict[str, Tensor], plain: str) -> str:
    """SHA-256 over all names, shapes, types and numbers."""
    digest = hashlib.sha256(plain.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """The optimizer's state as flat tensors ("optimizer.3.momentum_buffer") and plain values."""
    tensors: dict[str, Tensor] = {}
    plain: dict[str, Any] = {}
    for index, entries in optimizer.state_dict()["state"].items():
        for key, value in entries.items():
            target = tensors if isinstance(value, Tensor) else plain
            target[f"optimizer.{index}.{key}"] = value
    plain["lr"] = [group["lr"] for group in optimizer.param_groups]
    return tensors, plain


def restore_optimizer(
    optimizer: torch.optim.Optimizer, tensors: dict[str, Tensor], plain: dict[str, Any]
) -> None:
    """The inverse of `flatten_optimizer`; what has the shape of a parameter gets its memory layout, too."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    state: dict[int, dict[str, Any]] = {}
    for name, value in (*tensors.items(), *plain.items()):
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            alike = isinstance(value, Tensor) and value.shape == parameters[int(index)].shape
            laid_out = torch.empty_like(parameters[int(index)]).copy_(value) if alike else value
            state.setdefault(int(index), {})[key] = laid_out
    groups = optimizer.state_dict()["param_groups"]
    for group, lr in zip(groups, plain["lr"], strict=True):
        group["lr"] = lr
    optimizer.load_state_dict({"state": state, "param_groups": groups})
