"""ncnn as an engine."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from igcv.engines.session import INPUT, OUTPUT, Inference, check_images
from igcv.errors import InputError
from igcv.extras import required
from igcv.weights.card import CARD_KEY


class NcnnSession:
    """Session of ncnn on the CPU, in float32. A .param file needs a .bin and a .json file of the same name.

    The network takes one float32 image (3, S, S) at a time.
    """

    package, suffix, extra = "ncnn", ".param", "ncnn"
    beside: tuple[str, ...] = (".bin", ".json")

    def __init__(self, path: Path, threads: int | None = None) -> None:
        ncnn = required(self.package, "ncnn", self.extra)
        for file in (path, path.with_suffix(".bin")):
            if not file.is_file():
                raise FileNotFoundError(f"file not found: '{file}'")
        self.ncnn: Any = ncnn
        self.net: Any = ncnn.Net()
        self.net.opt.num_threads = threads or torch.get_num_threads()
        # By default ncnn computes in float16 where it can, which changes the logits by about 0.3 %.
        for option in ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
            setattr(self.net.opt, option, False)
        if self.net.load_param(str(path)) or self.net.load_model(str(path.with_suffix(".bin"))):
            raise ValueError("ncnn cannot read the file")
        self.about = _about(path)
        self.card = json.dumps(self.about[CARD_KEY]) if CARD_KEY in self.about else ""

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "NcnnSession":
        """Return a session of a file."""
        return cls(path, threads)

    def bind(self, images: np.ndarray) -> Inference:
        shape = self.about.get("shape")
        check_images(images, tuple(shape) if shape else images.shape[1:], pixels=False)
        # Other memory layouts give wrong numbers without an error, and a Mat does not keep its memory alive.
        whole = np.ascontiguousarray(images)
        given = [self.ncnn.Mat(image) for image in whole]

        def run(kept: np.ndarray = whole) -> np.ndarray:
            return np.stack([self._logits(image) for image in given])

        return run

    def _logits(self, image: Any) -> np.ndarray:
        extractor = self.net.create_extractor()
        extractor.input(INPUT, image)
        failed, logits = extractor.extract(OUTPUT)
        if failed:
            raise ValueError(f"ncnn cannot run the network (status {failed})")
        return np.array(logits)


def _about(path: Path) -> dict[str, Any]:
    """Return what the .json file next to a .param file says; empty if there is none."""
    file = path.with_suffix(".json")
    about = json.loads(file.read_text()) if file.is_file() else {}
    shape = about.get("shape", []) if isinstance(about, dict) else None
    if not isinstance(shape, list) or any(type(size) is not int for size in shape):
        raise InputError(
            f"'{file}': expected a JSON object, with integers as 'shape' if it has one. Export it again."
        )
    return about
