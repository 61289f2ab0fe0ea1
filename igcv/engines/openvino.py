"""OpenVINO as an inference engine."""

from pathlib import Path

import numpy as np
import torch

from igcv.engines.onnxruntime import OnnxSession
from igcv.engines.session import Inference
from igcv.extras import required
from igcv.weights.card import CARD_KEY


class OpenVinoSession:
    """Session of OpenVINO on the CPU. OpenVINO reads .onnx files, and .xml files with a .bin file of the same name."""

    package, suffix, extra = "openvino", ".xml", "deploy"
    beside: tuple[str, ...] = (".bin",)

    def __init__(self, model: bytes | str, threads: int | None = None) -> None:
        ov = required(self.package, "openvino", "deploy")
        core = ov.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        # int8 networks gain from the conversion for deployment.
        foreign = isinstance(model, str) and model.endswith(OnnxSession.suffix)
        read = ov.convert_model(model) if foreign else core.read_model(model)
        place = next(
            (place for place in (CARD_KEY, ["framework", CARD_KEY]) if read.has_rt_info(place)), None
        )
        self.card = str(read.get_rt_info(place).value) if place else ""
        self.compiled = core.compile_model(read, "CPU", settings)

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "OpenVinoSession":
        """Return a session of a file."""
        return cls(str(path), threads)

    def bind(self, images: np.ndarray) -> Inference:
        request = self.compiled.create_infer_request()
        given = np.ascontiguousarray(images)
        request.set_input_tensor(
            required(self.package, "openvino", "deploy").Tensor(given, shared_memory=True)
        )

        def run(kept: np.ndarray = given) -> np.ndarray:  # `kept` holds the memory of the shared tensor
            request.infer()
            return request.get_output_tensor().data.copy()  # the next run overwrites the tensor

        return run
