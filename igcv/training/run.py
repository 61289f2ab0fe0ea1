"""The run folder: what a training run leaves behind, and what it needs to go on.

recipe.toml          every setting, resolved
metrics.jsonl        one JSON object per epoch
last.safetensors     weights after the newest epoch, with their card
best.safetensors     weights of the best epoch so far
state.safetensors    optimizer, moving average and counters, to resume from
curves.png           loss, accuracy and learning rate
summary.json         the figures of the finished run
tensorboard/         the same curves as TensorBoard events
"""

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from igcv.classifier import BEST, LAST
from igcv.errors import InputError
from igcv.training.recipe import Recipe, load_recipe
from igcv.weights import Card, read_tensors, save_weights, write_file, write_tensors

RECIPE, METRICS, STATE, CURVES, SUMMARY = (
    "recipe.toml",
    "metrics.jsonl",
    "state.safetensors",
    "curves.png",
    "summary.json",
)

# What the state of a run depends on, so that it cannot change when the run goes on.
FIXED = ("model", "multiplier", "input_size", "optimizer", "decay_rule", "precision", "ema_decay")


@dataclass
class State:
    """Where a run stands, besides its weights."""

    epoch: int = 0  # finished epochs
    best_top1: float = -1.0  # percent
    tensors: dict[str, Tensor] = field(default_factory=dict)  # model, moving average and optimizer, flat
    scalars: dict[str, Any] = field(default_factory=dict)  # the optimizer's plain values, the loss scaler


class Run:
    """A run folder, open for writing.

    Args:
        path: the folder; created if absent.
        resume: go on with the run in it; without, a folder that holds a run is refused.

    Raises:
        InputError: for a folder that holds a run already, or none to resume, or cannot be written.
    """

    def __init__(self, path: Path, resume: bool) -> None:
        self.path = path
        try:
            holds = [name for name in (METRICS, STATE, LAST, BEST) if (path / name).exists()]
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {path}: {error.strerror}; choose another --out"
            ) from error
        if resume and STATE not in holds:
            raise InputError(
                f"there is no run to resume in {path} (no {STATE}); leave out --resume to start one"
            )
        if not resume and holds:
            raise InputError(
                f"{path} already holds a run; add --resume to go on with it or choose another --out"
            )

    def check_recipe(self, recipe: Recipe) -> None:
        """Raise InputError where `recipe` cannot go on with this run: what its state depends on has changed."""
        stored = load_recipe(self.path / RECIPE)
        for key in FIXED:
            before, now = getattr(stored, key), getattr(recipe, key)
            if before != now:
                raise InputError(
                    f"the run in {self.path} has {key} = {before}, not {now}; resume it with its own"
                )

    def save_epoch(
        self, recipe: Recipe, state: State, weights: dict[str, Tensor], card: Card, is_best: bool
    ) -> None:
        """Write recipe and weights, then the state, so that a state never speaks of weights that are not there."""
        write_file(self.path / RECIPE, recipe.to_toml().encode())
        for name in (LAST, BEST) if is_best else (LAST,):
            save_weights(self.path / name, weights, card)
        plain = {"epoch": state.epoch, "best_top1": state.best_top1, "scalars": state.scalars}
        write_tensors(self.path / STATE, state.tensors, {"state": json.dumps(plain)})

    def load_state(self) -> State:
        """The state to resume from."""
        tensors, metadata = read_tensors(self.path / STATE)
        try:
            plain = json.loads(metadata["state"])
            return State(plain["epoch"], plain["best_top1"], tensors, plain["scalars"])
        except (KeyError, ValueError, TypeError) as error:
            raise InputError(f"{self.path / STATE} is not the state of a run; start the run anew") from error

    def log(self, row: dict[str, Any], history: list[dict[str, Any]]) -> None:
        """Write the metrics log anew with `row` at its end: rows of epochs to be repeated are gone from it."""
        history.append(row)
        write_file(self.path / METRICS, "".join(json.dumps(r) + "\n" for r in history).encode())

    def history(self, epochs: int) -> list[dict[str, Any]]:
        """The logged rows of the first `epochs` epochs."""
        return [row for row in read_metrics(self.path) if row["epoch"] <= epochs]

    def save_summary(self, summary: dict[str, Any]) -> None:
        write_file(self.path / SUMMARY, (json.dumps(summary, indent=2) + "\n").encode())


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics log, oldest first; none if it has not logged yet."""
    file = path / METRICS
    if not file.is_file():
        return []
    try:
        return [json.loads(line) for line in file.read_text().splitlines()]
    except ValueError as error:
        raise InputError(f"{file} is not a metrics log ({error}); it holds one JSON object a line") from error


def write_events(path: Path, history: list[dict[str, Any]]) -> None:
    """The metrics as TensorBoard events in the folder `path`, replacing older ones."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, needed once

    try:
        for old in path.glob("events.*") if path.is_dir() else ():
            old.unlink()
        with SummaryWriter(str(path)) as writer:
            for row in history:
                for name, value in row.items():
                    if name != "epoch":
                        writer.add_scalar(name, value, row["epoch"])
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free some space") from error


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
    """The inverse of `flatten_optimizer`."""
    state: dict[int, dict[str, Any]] = {}
    for name, value in (*tensors.items(), *plain.items()):
        if name.startswith("optimizer."):
            _, index, key = name.split(".", 2)
            state.setdefault(int(index), {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    for group, lr in zip(groups, plain["lr"], strict=True):
        group["lr"] = lr
    optimizer.load_state_dict({"state": state, "param_groups": groups})
