"""Exported files as sessions and modules, for evaluation, prediction and measurements."""

import sys
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from igcv.data import as_pixels
from igcv.data.preprocessing import Preprocessing
from igcv.engines.session import Session
from igcv.engines.table import ENGINES, NOTES
from igcv.engines.table import engine as find_engine
from igcv.errors import InputError
from igcv.weights.card import Card

SUFFIXES = {session.suffix: name for name, session in ENGINES.items()}


class EngineModule(nn.Module):
    """Module around a session, on the CPU: float32 images (N, 3, S, S) -> logits (N, num_classes).

    Args:
        session: the session of an exported file.
        preprocessing: the preprocessing that the file includes, which the module inverts to feed the file uint8
            images; None if the file takes normalized images.
        note: a note on its results (see `note_of`).
    """

    def __init__(self, session: Session, preprocessing: Preprocessing | None, note: str = "") -> None:
        super().__init__()
        self.session, self.preprocessing, self.note = session, preprocessing, note
        # Callers take the device of a module from its parameters.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        images = x.numpy(force=True)
        if self.preprocessing is not None:
            images = as_pixels(images, self.preprocessing)
        return torch.from_numpy(np.array(self.session.bind(np.ascontiguousarray(images))()))


def is_exported(path: str | Path) -> bool:
    """Return whether the path has the suffix of a file of `igcv export`."""
    return Path(path).suffix in SUFFIXES


def files_of(path: Path) -> list[Path]:
    """Return the files of an export: the file itself, then the files of the same name next to it."""
    return [path, *(path.with_suffix(suffix) for suffix in ENGINES[SUFFIXES[path.suffix]].beside)]


def size_of(path: Path) -> int:
    """Return the total size of the files of an export, in bytes."""
    return sum(
        file.stat().st_size for each in files_of(path) for file in (each, *each.rglob("*")) if file.is_file()
    )


def note_of(path: str | Path) -> str:
    """Return a note on the results of a file if its engine cannot run here; otherwise empty."""
    return "" if sys.platform == "darwin" else NOTES.get(SUFFIXES.get(Path(path).suffix, ""), "")


def open_session(path: Path, engine: str | None = None, threads: int | None = None) -> Session:
    """Return a session of an exported file, in the engine of its format or in another engine that reads it."""
    name = engine or SUFFIXES[path.suffix]
    if path.suffix != find_engine(name).suffix and (path.suffix, name) != (".onnx", "openvino"):
        raise InputError(f"engine '{name}' cannot read '{path}'; expected a {ENGINES[name].suffix} file")
    try:
        return find_engine(name).open(path, threads)
    except InputError:
        raise
    except Exception as error:  # each engine has its own exceptions
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(
            f"engine '{name}' cannot open '{path}' ({reason[:200]}). Export it again."
        ) from error


def card_of(session: Session, path: Path) -> Card:
    """Return the card in the metadata of an opened file."""
    if not session.card:
        raise InputError(f"'{path}' has no igcv card; expected a file written by igcv export")
    return Card.from_json(session.card, path)


def takes_pixels(card: Card) -> bool:
    """Return whether an exported file with this card includes the preprocessing."""
    return card.source.get("export", {}).get("with_preprocessing", False)
