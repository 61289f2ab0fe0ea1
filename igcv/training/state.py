"""State of a run for --resume: flat tensors and plain values, and the state file.

The state contains no random generator states: all random numbers follow from the seed and the position (epoch, step,
image, process).
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
    """Progress and measurements of an epoch in one process."""

    steps: int = 0  # finished optimizer steps
    loss_sum: float = 0.0  # sum over the images
    images: int = 0
    time_s: float = 0.0
    data_wait_s: float = 0.0  # part of time_s spent waiting for images
    left_out: int = 0  # consecutive steps skipped up to now because gradients overflowed (fp16)

    @property
    def loss(self) -> float:
        """The mean loss of the images."""
        return self.loss_sum / max(self.images, 1)


def combined(parts: Sequence[EpochProgress]) -> EpochProgress:
    """Return the combined measurements of all processes; the times are those of rank 0."""
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
    """State of a run.

    Attributes:
        epoch: number of finished epochs.
        best: score of the best epoch by the recipe's best_by (see igcv.report.run.score); None without a score.
        batch_size: images per optimizer step.
        progress: progress of each process in the unfinished epoch; empty between two epochs.
        bad: unreadable images, name -> reason.
        tensors: network, EMA and optimizer, flat; within an epoch, also the buffers of the other processes.
        scalars: plain values of the optimizer and the loss scaler, and the block forms.
        note: reason why this is not the newest state in its folder; empty if it is the newest.
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
    """Return the state as the bytes of a safetensors file with a digest of its content.

    Raises:
        InputError: the state has non-finite values and could not be resumed.
    """
    tensors = on_cpu(state.tensors)
    for name, tensor in tensors.items():
        if not torch.isfinite(tensor).all():
            raise InputError(
                f"non-finite values in {name} after epoch {state.epoch}. Lower lr, or add warmup_epochs or "
                "clip_grad_norm. Then resume from the last checkpoint with --resume"
            )
    kept = ("epoch", "best", "batch_size", "bad", "scalars")
    values = {key: getattr(state, key) for key in kept} | {"progress": [asdict(p) for p in state.progress]}
    plain = json.dumps(values)
    return save(tensors, {_PLAIN: plain, _DIGEST: _digest(tensors, plain)})


def decode(path: Path) -> State:
    """Return the state in a file written from `encode`.

    Raises:
        InputError: the file is missing, truncated, damaged or not a state file.
    """
    tensors, metadata = read_tensors(path)
    try:
        plain = metadata[_PLAIN]
        if metadata[_DIGEST] != _digest(tensors, plain):
            raise ValueError("the digest does not match")
        values = json.loads(plain)
        progress = tuple(EpochProgress(**part) for part in values.pop("progress"))
        if "best_top1" in values:  # version 0.1.0 and versions before best_by, where -1 means None
            top1 = values.pop("best_top1")
            values["best"] = top1 if top1 >= 0 else None
        return State(**values, progress=progress, tensors=tensors)
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        raise InputError(
            f"'{path}' is not an intact state of a run ({error}). Start the run again"
        ) from error


def _digest(tensors: dict[str, Tensor], plain: str) -> str:
    """Return the SHA-256 digest of all names, shapes, types and values."""
    digest = hashlib.sha256(plain.encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def flatten_optimizer(optimizer: torch.optim.Optimizer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Return the optimizer's state as flat tensors ("optimizer.3.momentum_buffer") and plain values."""
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
    """Load the output of `flatten_optimizer`; tensors of a parameter's shape also get its memory layout."""
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
