"""LiteRT (the successor of TensorFlow Lite) as an engine."""

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igcv.engines.session import Inference, check_images, in_batches
from igcv.errors import InputError
from igcv.extras import required
from igcv.silence import silent

CARD_FILE, LABELS_FILE = "igcv.json", "labels.txt"  # in the zip archive at the end of a file


class LiteRtSession:
    """Session of LiteRT on the CPU, with the XNNPACK delegate.

    The file takes a fixed number of images, (N, S, S, 3): float32, or uint8 if it includes the preprocessing.
    """

    package, suffix, extra = "ai_edge_litert", ".tflite", "litert"
    beside: tuple[str, ...] = ()

    def __init__(self, path: Path, threads: int | None = None) -> None:
        litert = required("ai_edge_litert.interpreter", "litert", self.extra)
        with silent():  # LiteRT reports every delegate
            self.interpreter: Any = litert.Interpreter(
                model_path=str(path), num_threads=threads or torch.get_num_threads()
            )
            self.interpreter.allocate_tensors()
        (self.given,) = self.interpreter.get_input_details()
        (self.found,) = self.interpreter.get_output_details()
        self.card = _card(path)

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "LiteRtSession":
        """Return a session of a file."""
        return cls(path, threads)

    def bind(self, images: np.ndarray) -> Inference:
        batch, *rest = (int(size) for size in self.given["shape"])
        height, width, channels = rest
        pixels = self.given["dtype"] == np.uint8
        check_images(images, (height, width, channels) if pixels else (channels, height, width), pixels)
        parts = in_batches(images if pixels else images.transpose(0, 2, 3, 1), batch)

        def run() -> np.ndarray:
            found = []
            for part in parts:
                self.interpreter.set_tensor(self.given["index"], part)
                self.interpreter.invoke()
                found.append(self.interpreter.get_tensor(self.found["index"]))
            return np.concatenate(found)[: len(images)]

        return run


def _card(path: Path) -> str:
    """Return the card in the zip archive at the end of a file; empty if there is none."""
    if not zipfile.is_zipfile(path):
        return ""
    with zipfile.ZipFile(path) as archive:
        if CARD_FILE not in archive.namelist():
            return ""
        size = archive.getinfo(CARD_FILE).file_size
        if size > path.stat().st_size:  # compressed: a small file could fill the memory
            raise InputError(
                f"'{path}': got a card of {size:,} bytes, more than the file has. Open only files of igcv export."
            )
        return archive.read(CARD_FILE).decode()
