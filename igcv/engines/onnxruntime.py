"""ONNX Runtime as an inference engine."""

from pathlib import Path

import numpy as np
import torch

from igcv.engines.session import Inference
from igcv.extras import required
from igcv.weights.card import CARD_KEY


class OnnxSession:
    """Session of ONNX Runtime on the CPU."""

    package, suffix, extra = "onnxruntime", ".onnx", "deploy"
    beside: tuple[str, ...] = ()

    def __init__(self, model: bytes | str, threads: int | None = None) -> None:
        ort = required(self.package, "onnx", "deploy")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.card = self.session.get_modelmeta().custom_metadata_map.get(CARD_KEY, "")

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "OnnxSession":
        """Return a session of a file."""
        return cls(str(path), threads)

    def bind(self, images: np.ndarray) -> Inference:
        given = {self.session.get_inputs()[0].name: images}
        return lambda: self.session.run(None, given)[0]
