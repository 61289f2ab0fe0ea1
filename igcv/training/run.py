"""The run folder: what a training run leaves behind, and what it needs to go on.

recipe.toml                  every setting, resolved
split.csv                    which image belongs to which part, where not the data itself says it
data.json                    the classes, the numbers of images and a digest of their labels
metrics.jsonl                one JSON object per epoch
last.safetensors             weights after the newest epoch, with their card
best.safetensors             weights of the best epoch so far
state.safetensors            all that is needed to go on, also in the middle of an epoch (see igcv.training.state)
state.previous.safetensors   the state before it, in case it is damaged
evaluation.json              what the best epoch's weights take for what, and the images they get most wrong
bad_images.jsonl             the images that could not be read, if there were any
report.html                  all of this as a page
tensorboard/                 the curves as TensorBoard events
summary.json                 the figures of the finished run

Each file is replaced in one step, so that whoever reads it sees the old or the new one, whole.
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
Metrics = dict[str, Any]  # what an epoch measured, or a whole run: a line of METRICS, or SUMMARY

STATE, PREVIOUS = "state.safetensors", "state.previous.safetensors"
LOCK = ".lock"

# What may change when a run goes on: neither its state nor the meaning of its best score depends on these. Data may
# move to another place; see igcv.training.kept.
CHANGEABLE = (
    *("data", "match", "epochs", "epoch_images", "max_minutes", "patience"),
    *("batch_size", "drop_last", "accumulation", "sync_batch_norm", "max_bad_images", "max_left_out"),
    *("lr", "momentum", "nesterov", "weight_decay", "schedule", "warmup_epochs", "min_lr", "lr_factor"),
    *("lr_step_epochs", "clip_grad_norm", "class_weights", "sampling", "label_smoothing", "drop_rate"),
    *("augment", "randaugment", "random_erasing", "mixup", "cutmix"),
    *("form", "channels_last", "compile", "workers", "resident", "save_minutes"),
)


class Run:
    """A run folder; open for writing, it keeps other processes from writing there.

    Args:
        path: the folder; created if absent.
        resume: go on with the run in it; without, a folder that holds a run is refused.
        write: take the folder for this process; else only read.

    Raises:
        InputError: for a folder that holds a run already, or none to resume, or cannot be written, or into which
            another process writes.
    """

    def __init__(self, path: Path, resume: bool, write: bool = True) -> None:
        self.path = path
        self._newest_is_whole = True
        try:
            holds = [name for name in (METRICS, STATE, PREVIOUS, LAST, BEST) if (path / name).exists()]
            path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"cannot make the folder {path}: {error.strerror}; choose another --out"
            ) from error
        if resume and not has_state(path):
            raise InputError(
                f"there is no run to resume in {path} (no {STATE}); leave out --resume to start one"
            )
        if not resume and holds:
            raise InputError(
                f"{path} already holds a run; add --resume to go on with it or choose another --out"
            )
        if write:
            self._lock()

    def _lock(self) -> None:
        """Keep other processes out until this one ends, however it ends, or the object is gone."""
        try:
            file = os.open(self.path / LOCK, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise InputError(
                f"cannot write into {self.path}: {error.strerror}; choose another --out"
            ) from error
        weakref.finalize(self, os.close, file)
        try:
            # Unlike flock, this is not held on to by forked loader processes.
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.read(file, 200).decode(errors="replace").partition("\n")[0]
            raise InputError(
                f"{owner or 'another process'} is writing into {self.path}; wait for it, or choose another --out"
            ) from None
        except OSError:
            return  # a file system without locks
        with suppress(OSError):  # a full disk is told about where it matters
            os.truncate(file, 0)
            os.write(file, f"process {os.getpid()} on {socket.gethostname()}\n{_starter()}\n".encode())

    def check_recipe(self, recipe: Recipe) -> Recipe:
        """Return `recipe` with the run's own choice of precision in place of "auto".

        Raises:
            InputError: `recipe` cannot resume this run, as something on which its state depends has changed.
        """
        stored = load_recipe(self.path / RECIPE)
        check_strides_known(self.path, stored.model, stored.input_size, stored.strides)
        if not stored.strides:  # as they are today
            stored = replace(stored, strides=recipe.strides)
        if recipe.precision == "auto":
            recipe = replace(recipe, precision=stored.precision)
        for key, before in vars(stored).items():
            if key not in CHANGEABLE and before != (now := getattr(recipe, key)):
                raise InputError(
                    f"the run in {self.path} has {key} = {before or repr(before)}, not {now or repr(now)}; resume it "
                    "with its own, or start a new run from its weights with --init-from"
                )
        return recipe

    def keep_data(self, source: DataSource, resume: bool) -> None:
        """Keep classes and labels, and which image belongs to which part, where igcv or a list has decided it.

        A run keeps its first list.
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
        """Write all of an epoch, the state last, so that it never speaks of what is not there."""
        encoded = encode(state)
        for name in (LAST, BEST) if is_best else (LAST,):
            save_weights(self.path / name, weights, card)
        self._write_lines(METRICS, history)
        self._save(recipe, state, encoded)

    def save_state(self, recipe: Recipe, state: State) -> None:
        """Write what is needed to go on from the middle of an epoch."""
        self._save(recipe, state, encode(state))

    def _save(self, recipe: Recipe, state: State, encoded: bytes) -> None:
        write_file(self.path / RECIPE, recipe.to_toml().encode())
        self.list_bad(state.bad)
        write_file(self.path / STATE, encoded, self.path / PREVIOUS if self._newest_is_whole else None)
        self._newest_is_whole = True

    def list_bad(self, bad: dict[str, str]) -> None:
        """List the images that cannot be read, name -> reason, if there are any."""
        if bad:
            self._write_lines(BAD, [{"image": name, "reason": reason} for name, reason in bad.items()])

    def load_state(self) -> State:
        """The state to go on from: the newest that is whole, with a note if it is not the newest."""
        try:
            return decode(self.path / STATE)
        except InputError as error:
            if not (self.path / PREVIOUS).is_file():
                raise
            state = decode(self.path / PREVIOUS)
            self._newest_is_whole = False
            return replace(state, note=str(error))

    def is_finished(self, epochs: int) -> bool:
        """Whether the run has come to its end after so many epochs or more, summary and all."""
        return summary_of(self.path, epochs) is not None

    def history(self, epochs: int) -> list[dict[str, Any]]:
        """The logged rows of the first `epochs` epochs."""
        return [row for row in read_metrics(self.path) if row["epoch"] <= epochs]

    def save_evaluation(self, evaluation: dict[str, Any]) -> None:
        write_file(self.path / EVALUATION, (to_json(evaluation) + "\n").encode())

    def save_summary(self, summary: dict[str, Any]) -> None:
        write_file(self.path / SUMMARY, (to_json(summary, indent=2) + "\n").encode())

    def _write_lines(self, name: str, rows: list[dict[str, Any]]) -> None:
        write_file(self.path / name, "".join(to_json(row) + "\n" for row in rows).encode())


def summary_of(path: Path, epochs: int) -> Metrics | None:
    """The summary of the run in a folder that has ended after so many epochs or more; else None."""
    try:
        summary = json.loads((path / SUMMARY).read_text())
        return summary if summary["epochs"] >= epochs else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def was_restarted(path: Path) -> bool:
    """Whether torchrun has started this command again, and the run in the folder `path` is what it is to go on with.

    That is so if the same torchrun had started the process that wrote there last.
    """
    try:
        starter = (path / LOCK).read_text().splitlines()[1]
    except (OSError, ValueError, IndexError):
        return False
    return bool(starter) and starter == _starter() and has_state(path)


def _starter() -> str:
    """The torchrun that started this process; empty if none did."""
    return f"torchrun {os.getppid()} on {socket.gethostname()}" if is_torchelastic_launched() else ""


def has_state(path: Path) -> bool:
    """Whether the folder `path` holds a run that can go on."""
    return any((path / name).is_file() for name in (STATE, PREVIOUS))


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The rows of a run's metrics log, oldest first; none if it has not logged yet."""
    file = path / METRICS
    if not file.is_file():
        return []
    try:
        return [json.loads(line) for line in read_text(file, "one JSON object a line").splitlines()]
    except ValueError as error:
        raise InputError(f"{file} is not a metrics log ({error}); it holds one JSON object a line") from error


def write_events(path: Path, history: list[dict[str, Any]]) -> None:
    """The metrics as TensorBoard events in the folder `path`, replacing older ones."""
    from torch.utils.tensorboard import SummaryWriter  # slow to import, needed once

    try:
        path.mkdir(exist_ok=True)
        for old in path.glob("events.*"):
            old.unlink()
        with tempfile.TemporaryDirectory() as plain:  # TensorBoard takes no folder whose name is not UTF-8
            with SummaryWriter(plain) as writer:
                for row in history:
                    for name, value in row.items():
                        if name != "epoch":
                            writer.add_scalar(name, value, row["epoch"])
            for events in Path(plain).iterdir():
                shutil.copy(events, path)
    except OSError as error:
        raise InputError(f"cannot write {path}: {error.strerror}; free some space") from error
