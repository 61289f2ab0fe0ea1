"""Core ML as an engine."""

import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from igcv.engines.mil import MilProgram
from igcv.engines.session import Inference, check_images
from igcv.extras import required
from igcv.machine.threads import using_threads
from igcv.silence import silent
from igcv.weights.card import CARD_KEY

INPUT, OUTPUT = "image", "logits"  # names in the package
SPEC, WEIGHTS = "Data/com.apple.CoreML/model.mlmodel", "Data/com.apple.CoreML/weights"  # in the package
READ_BACK = "Core ML package: PyTorch ran its operations in float32; Apple's kernels were not run"


class CoreMlSession:
    """Session of a Core ML package, a folder. The network takes one uint8 image (S, S, 3) at a time.

    Args:
        path: the package.
        threads: number of threads of PyTorch; None: its number.
        native: whether Core ML runs the package, which needs macOS (not tried yet); otherwise PyTorch runs its
            operations (see `igcv.engines.mil`).
    """

    package, suffix, extra = "coremltools", ".mlpackage", "coreml"
    beside: tuple[str, ...] = ()

    def __init__(self, path: Path, threads: int | None = None, native: bool = False) -> None:
        coremltools = required(self.package, "coreml", self.extra)
        with silent():
            spec = coremltools.utils.load_spec(str(path))
            self.native: Any = coremltools.models.MLModel(str(path)) if native else None
        (described,) = spec.description.input
        self.size = (described.type.imageType.height, described.type.imageType.width)
        self.card = spec.description.metadata.userDefined.get(CARD_KEY, "")
        self.threads = threads or torch.get_num_threads()
        self.program = None if native else MilProgram(spec, path / WEIGHTS)

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "CoreMlSession":
        """Return a session of a package, which Core ML runs on macOS, and PyTorch elsewhere."""
        return cls(path, threads, native=sys.platform == "darwin")

    def bind(self, images: np.ndarray) -> Inference:
        check_images(images, (*self.size, 3), pixels=True)
        logits = self._read_back if self.program else self._predicted

        def run() -> np.ndarray:
            with torch.inference_mode(), using_threads(self.threads):
                return np.concatenate([logits(image) for image in images])

        return run

    def _read_back(self, image: np.ndarray) -> np.ndarray:
        """Return the logits (1, num_classes) of an image, computed by PyTorch."""
        assert self.program is not None
        pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0).float()
        return self.program.run(pixels)[OUTPUT].numpy()

    def _predicted(self, image: np.ndarray) -> np.ndarray:
        """Return the logits (1, num_classes) of an image, computed by Core ML."""
        return self.native.predict({INPUT: Image.fromarray(image)})[OUTPUT]
