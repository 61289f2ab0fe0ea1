"""The run folder: results of a training run, and its state for --resume.

recipe.toml                  all settings, resolved
split.csv                    part of each image, unless the data source defines the parts
data.json                    classes, numbers of images and a digest of the labels
metrics.jsonl                one JSON object per epoch
last.safetensors             weights after the newest epoch, with their card
best.safetensors             weights of the best epoch so far
state.safetensors            state for --resume, also within an epoch (see igcv.training.state)
state.previous.safetensors   previous state, in case the newest is damaged
evaluation.json              confusion matrix and highest-loss errors of the best epoch
bad_images.jsonl             unreadable images, if any
report.html                  the report
tensorboard/                 the curves as TensorBoard events
summary.json                 results of the finished run

Files are replaced atomically: a reader sees either the old or the new file.
"""

import fcntl
import json
import os
import shutil
import socket
import tempfile
import weakref
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.distributed import is_torchelastic_launched

from igcv.classifier import BEST, LAST, RECIPE, SPLIT
from igcv.data.sources.listed import list_bytes
from igcv.data.sources.open import DataSource
from igcv.errors import InputError
from igcv.reading import read_text
from igcv.training.kept import KeptData
from igcv.training.recipe import Recipe
from igcv.training.recipe_file import load_recipe
from igcv.training.state import State, decode, encode
from igcv.weights import save_weights
from igcv.weights.card import Card, check_strides_known
from igcv.writing import to_json, write_file

METRICS, EVALUATION, BAD, REPORT, SUMMARY = (
    "metrics.jsonl",
    "evaluation.json",
    "bad_images.jsonl",
    "report.html",
    "summary.json",
)
Metrics = dict[str, Any]  # measurements of an epoch (a line of METRICS) or of a run (SUMMARY)

STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"
LOCK = ".lock"

# Settings that may change when a run is resumed: neither the state nor the best score depends on them. Data may move
# to another place; see igcv.training.kept.
CHANGEABLE = (
    *("data", "match", "epochs", "epoch_images", "max_minutes", "patience"),
    *("batch_size", "drop_last", "accumulation", "sync_batch_norm", "max_bad_images", "max_left_out"),
    *("lr", "momentum", "nesterov", "weight_decay", "schedule", "warmup_epochs", "min_lr", "lr_factor"),
    *("lr_step_epochs", "clip_grad_norm", "class_weights", "sampling", "label_smoothing", "drop_rate"),
    *("augment", "randaugment", "random_erasing", "mixup", "cutmix"),
    *("form", "channels_last", "compile", "workers", "resident", "cuda_graph"),
    "save_minutes",
)


class Run:
    """A run folder, locked against other processes while it is open for writing.

    Args:
        path: the folder; created if missing.
        resume: open the existing run in the folder; otherwise the folder must not hold a run.
        write: lock the folder for this process; otherwise only read.

    Raises:
        InputError: the folder already holds a run, holds no run to resume, is not writable, or is locked by another
            process.
    """

    def __init__(self, path: Path, resume: bool, write: bool = True) -> None:
        self.path = path
        self._newest_is_whole = True
        try:
            holds = [name for name in (METRICS, STATE, PREVIOUS, LAST, BEST) if (path / name).exists()]
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot create the folder '{path}': {error.strerror}. Choose another --out"
            ) from error
        if resume and not has_state(path):
            raise InputError(
                f"no run to resume in '{path}': {STATE} is missing. Omit --resume to start a run"
            )
        if not resume and holds:
            raise InputError(
                f"'{path}' already holds a run. Add --resume to continue it, or choose another --out"
            )
        if write:
            self._lock()

    def _lock(self) -> None:
        """Lock the folder until this process ends in any way, or the object is deleted."""
        try:
            file = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"cannot write to '{self.path}': {error.strerror}. Choose another --out"
            ) from error
        weakref.finalize(self, os.close, file)
        try:
            # Unlike flock, forked data-loading workers do not inherit this lock.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 200).decode(errors="replace").partition("\n")[0]
            raise InputError(
                f"{owner or 'another process'} is writing to '{self.path}'. Wait until it ends, or choose another --out"
            ) from None
        except OSError:
            return  # a file system without locks
        with suppress(OSError):  # a full disk raises an error later, when results are written
            os.truncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n{_starter()}\n".encode())

    def check_recipe(self, recipe: Recipe) -> Recipe:
        """Return `recipe` with precision "auto" replaced by the run's choice.

        Raises:
            InputError: a setting on which the state of the run depends has changed.
        """
        stored = load_recipe(self.path / RECIPE)
        check_strides_known(self.path, stored.model, stored.input_size, stored.strides)
        if not stored.strides:  # older runs did not record strides, but use the same ones
            stored = replace(stored, strides=recipe.strides)
        if recipe.precision == "auto":
            recipe = replace(recipe, precision=stored.precision)
        for key, before in vars(stored).items():
            if key not in CHANGEABLE and before != (now := getattr(recipe, key)):
                raise InputError(
                    f"{key}: got {now or repr(now)}, expected {before or repr(before)} as in the run '{self.path}'. "
                    "Resume with the run's value, or start a new run from its weights with --init-from"
                )
        return recipe

    def keep_data(self, source: DataSource, resume: bool) -> None:
        """Write the data record and, if igcv or a list has split the data, the split.

        A resumed run keeps its first split.
        """
        if source.divided and not (resume and (self.path / SPLIT).exists()):
            write_file(self.path / SPLIT, list_bytes(source.listed()))
        KeptData.of(source).write(self.path)

    def save_epoch(
        self,
        recipe: Recipe,
        state: State,
        weights: dict[str, Tensor],
        card: Card,
        is_best: bool,
        history: list[dict[str, Any]],
    ) -> None:
        """Write all files of an epoch; the state comes last, so the files that it refers to always exist."""
        encoded = encode(state)
        for name in (LAST, BEST) if is_best else (LAST,):
            save_weights(self.path / name, weights, card)
        self._write_lines(METRICS, history)
        self._save(recipe, state, encoded)

    def save_state(self, recipe: Recipe, state: State) -> None:
        """Write a state within an epoch, for --resume."""
        self._save(recipe, state, encode(state))

    def _save(self, recipe: Recipe, state: State, encoded: bytes) -> None:
        write_file(self.path / RECIPE, recipe.to_toml().encode())
        self.list_bad(state.bad)
        write_file(self.path / STATE, encoded, self.path / PREVIOUS if self._newest_is_whole else None)
        self._newest_is_whole = True

    def list_bad(self, bad: dict[str, str]) -> None:
        """Write the list of unreadable images (name -> reason), if there are any."""
        if bad:
            self._write_lines(BAD, [{"image": name, "reason": reason} for name, reason in bad.items()])

    def load_state(self) -> State:
        """Return the newest undamaged state, with a note if the newest is damaged."""
        try:
            return decode(self.path / STATE)
        except InputError as error:
            if not (self.path / PREVIOUS).is_file():
                raise
            state = decode(self.path / PREVIOUS)
            self._newest_is_whole = False
            return replace(state, note=str(error))

    def is_finished(self, epochs: int) -> bool:
        """Return whether the run has finished at least `epochs` epochs and has a summary."""
        return summary_of(self.path, epochs) is not None

    def history(self, epochs: int) -> list[dict[str, Any]]:
        """Return the rows of the first `epochs` epochs in the metrics log."""
        return [row for row in read_metrics(self.path) if row["epoch"] <= epochs]

    def save_evaluation(self, evaluation: dict[str, Any]) -> None:
        write_file(self.path / EVALUATION, (to_json(evaluation) + "\n").encode())

    def save_summary(self, summary: dict[str, Any]) -> None:
        write_file(self.path / SUMMARY, (to_json(summary, indent=2) + "\n").encode())

    def _write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        write_file(self.path / name, "".join(to_json(row) + "\n" for row in rows).encode())


def summary_of(path: Path, epochs: int) -> Metrics | None:
    """Return the summary of the run in a folder if it has finished at least `epochs` epochs; else None."""
    try:
        summary = json.loads((path / SUMMARY).read_text())
        return summary if summary["epochs"] >= epochs else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def was_restarted(path: Path) -> bool:
    """Return whether torchrun has restarted this command and should resume the run in the folder `path`.

    This is the case if the same torchrun started the process that last wrote to the folder.
    """
    try:
        starter = (path / LOCK).read_text().splitlines()[1]
    except (OSError, ValueError, IndexError):
        return False
    return bool(starter) and starter == _starter() and has_state(path)


def _starter() -> str:
    """Return an identifier of the torchrun that started this process; empty without torchrun."""
    return f"torchrun {os.getppid()} on {socket.gethostname()}" if is_torchelastic_launched() else ""


def has_state(path: Path) -> bool:
    """Return whether the folder `path` holds a run that can be resumed."""
    return any((path / name).is_file() for name in (STATE, PREVIOUS))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """Return the rows of a run's metrics log, oldest first; empty if there is no log yet."""
    file = path / METRICS
    if not file.is_file():
        return []
    try:
        return [json.loads(line) for line in read_text(file, "one JSON object per line").splitlines()]
    except ValueError as error:
        raise InputError(f"cannot read '{file}', expected one JSON object per line: {error}") from error


def write_events(path: Path, history: list[dict[str, Any]]) -> None:
    """Write the metrics as TensorBoard events to the folder `path`; replace older events."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import

    try:
        path.mkdir(exist_ok=True)
        for old in path.glob("events.*"):
            old.unlink()
        with tempfile.TemporaryDirectory() as plain:  # TensorBoard rejects folder names that are not UTF-8
            with SummaryWriter(plain) as writer:
                for row in history:
                    for name, value in row.items():
                        if name != "epoch":
                            writer.add_scalar(name, value, row["epoch"])
            for events in Path(plain).iterdir():
                shutil.copy(events, path)
    except OSError as error:
        raise InputError(f"cannot write to '{path}': {error.strerror}. Free some space") from error
