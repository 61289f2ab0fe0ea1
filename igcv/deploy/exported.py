"""Exported files, opened again: evaluated, predicted with and measured like the run they came from."""

from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from igcv.classifier import Classifier, load
from igcv.data import Preprocessing, as_pixels
from igcv.deploy.engines import ENGINES, Session
from igcv.deploy.engines import engine as find_engine
from igcv.errors import InputError
from igcv.weights import Card

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


def open_any(path: str | Path, device: str | torch.device = "cpu") -> Classifier:
    """A run folder, a weights file or an exported file as a classifier.

    Args:
        path: what to open.
        device: where to put a network that runs in PyTorch.

    Raises:
        InputError: if it is none of these, or its engine is not installed.
    """
    if not is_exported(path):
        return load(path, device)
    if not Path(path).is_file():
        raise InputError(
            f"there is no file {path}; give a run folder, a .safetensors file or a file of igcv export"
        )
    session = open_session(Path(path))
    card = card_of(session, Path(path))
    pre = Preprocessing.from_dict(card.preprocessing) if takes_pixels(card) else None
    model: Any = EngineModule(session, pre)
    return Classifier(model, card)


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
