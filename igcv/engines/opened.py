"""Exported files, opened again: evaluated, predicted with and measured like the run they came from."""

from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from igcv.data import as_pixels
from igcv.data.preprocessing import Preprocessing
from igcv.engines.session import Session
from igcv.engines.table import ENGINES
from igcv.engines.table import engine as find_engine
from igcv.errors import InputError
from igcv.weights.card import Card

SUFFIXES = {session.suffix: name for name, session in ENGINES.items()}


class EngineModule(nn.Module):
    """A session as a module: float32 (N, 3, S, S) -> logits (N, num_classes), on the CPU.

    Args:
        session: the file in its engine.
        preprocessing: given where the file normalizes inside; its input is then turned back into bytes.
    """

    def __init__(self, session: Session, preprocessing: Preprocessing | None) -> None:
        super().__init__()
        self.session, self.preprocessing = session, preprocessing
        # Who asks where it is, is told: on the CPU.
        self.place = nn.Parameter(torch.empty(0), requires_grad=False)

    def forward(self, x: Tensor) -> Tensor:
        images = x.numpy(force=True)
        if self.preprocessing is not None:
            images = as_pixels(images, self.preprocessing)
        return torch.from_numpy(np.array(self.session.bind(np.ascontiguousarray(images))()))


def is_exported(path: str | Path) -> bool:
    """Whether a path is, by its name, a file that `igcv export` writes."""
    return Path(path).suffix in SUFFIXES


def files_of(path: Path) -> list[Path]:
    """The files of an export."""
    return [path, path.with_suffix(".bin")] if path.suffix == ".xml" else [path]


def size_of(path: Path) -> int:
    """Bytes of an export, all its files together."""
    return sum(file.stat().st_size for file in files_of(path))


def open_session(path: Path, engine: str | None = None, threads: int | None = None) -> Session:
    """An exported file in its engine, or in another one that reads it."""
    name = engine or SUFFIXES[path.suffix]
    if path.suffix != find_engine(name).suffix and (path.suffix, name) != (".onnx", "openvino"):
        raise InputError(f"the engine '{name}' does not read {path}; it reads {ENGINES[name].suffix} files")
    try:
        return find_engine(name).open(path, threads)
    except InputError:
        raise
    except Exception as error:  # every engine has exceptions of its own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise InputError(f"{path} cannot be opened by '{name}' ({reason[:200]}); export it again") from error


def card_of(session: Session, path: Path) -> Card:
    """The card in the metadata of the file that a session opened."""
    if not session.card:
        raise InputError(f"{path} has no igcv card; expected a file written by igcv export")
    return Card.from_json(session.card, path)


def takes_pixels(card: Card) -> bool:
    """Whether an exported file with this card normalizes inside."""
    return card.source.get("export", {}).get("with_preprocessing", False)
