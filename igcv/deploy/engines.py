"""The engines that run networks: one session class each, in one table.

A session takes images (N, 3, S, S) float32, or uint8 (N, S, S, 3) where preprocessing is inside, and gives logits
(N, num_classes) float32, all NumPy arrays.
"""

from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Protocol, Self

import numpy as np
import torch
from torch import Tensor, nn

from igcv.errors import InputError, unknown
from igcv.weights.files import CARD_KEY

Images = np.ndarray
Run = Callable[[], np.ndarray]


class Session(Protocol):
    """A network, ready to run in an engine."""

    card: str
    """The igcv card in the metadata of the file that was opened; empty where there is none."""

    def bind(self, images: Images) -> Run:
        """A function that classifies `images`, which are in the engine's own form already."""
        ...


class TorchSession:
    """PyTorch on the CPU, channels last."""

    package, suffix = "torch", ".pt2"

    def __init__(self, network: nn.Module, threads: int | None = None, card: str = "") -> None:
        if threads:
            torch.set_num_threads(threads)  # PyTorch has one number for the whole process
        self.network, self.card = network.to(memory_format=torch.channels_last), card

    @classmethod
    def of(cls, network: nn.Module, images: Tensor, threads: int | None = None) -> "TorchSession":
        """A session of a folded network."""
        return cls(network, threads)

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> "TorchSession":
        """A session of a torch.export program."""
        extra = {CARD_KEY: ""}
        program = torch.export.load(path, extra_files=extra)
        return cls(program.module(), threads, extra[CARD_KEY])

    def bind(self, images: Images) -> Run:
        given = torch.from_numpy(images)
        if images.dtype == np.float32:
            given = given.to(memory_format=torch.channels_last)

        def run() -> np.ndarray:
            with torch.inference_mode():
                return self.network(given).numpy()

        return run


class _GraphSession:
    """What engines that read ONNX graphs share: a session is made of a graph in memory or of a file."""

    def __init__(self, model: bytes | str, threads: int | None = None) -> None:
        raise NotImplementedError

    @classmethod
    def of(cls, network: nn.Module, images: Tensor, threads: int | None = None) -> Self:
        """A session of a folded network."""
        required("onnx", "onnx")
        from igcv.deploy.onnx_graph import onnx_graph

        return cls(onnx_graph(network, images).SerializeToString(), threads)

    @classmethod
    def open(cls, path: Path, threads: int | None = None) -> Self:
        """A session of a file."""
        return cls(str(path), threads)


class OnnxSession(_GraphSession):
    """ONNX Runtime on the CPU."""

    package, suffix = "onnxruntime", ".onnx"

    def __init__(self, model: bytes | str, threads: int | None = None) -> None:
        ort = required(self.package, "onnx")
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads or torch.get_num_threads()
        options.inter_op_num_threads = 1
        options.log_severity_level = 3  # errors only
        self.session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self.card = self.session.get_modelmeta().custom_metadata_map.get(CARD_KEY, "")

    def bind(self, images: Images) -> Run:
        given = {self.session.get_inputs()[0].name: images}
        return lambda: self.session.run(None, given)[0]


class OpenVinoSession(_GraphSession):
    """OpenVINO on the CPU; reads .xml files with their .bin beside them, and .onnx files as well."""

    package, suffix = "openvino", ".xml"

    def __init__(self, model: bytes | str, threads: int | None = None) -> None:
        ov = required(self.package, "openvino")
        core = ov.Core()
        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": threads or torch.get_num_threads(),
            "INFERENCE_PRECISION_HINT": "f32",
        }
        # Files of another format are converted as for deployment, which int8 gains from.
        foreign = isinstance(model, str) and model.endswith(OnnxSession.suffix)
        read = ov.convert_model(model) if foreign else core.read_model(model)
        place = next(
            (place for place in (CARD_KEY, ["framework", CARD_KEY]) if read.has_rt_info(place)), None
        )
        self.card = str(read.get_rt_info(place).value) if place else ""
        self.compiled = core.compile_model(read, "CPU", settings)

    def bind(self, images: Images) -> Run:
        request = self.compiled.create_infer_request()
        given = np.ascontiguousarray(images)
        request.set_input_tensor(required(self.package, "openvino").Tensor(given, shared_memory=True))

        def run(kept: np.ndarray = given) -> np.ndarray:  # the tensor does not keep the memory that it shares
            request.infer()
            return request.get_output_tensor().data.copy()  # it is overwritten by the next run

        return run


ENGINES: dict[str, Any] = {"torch": TorchSession, "onnx": OnnxSession, "openvino": OpenVinoSession}


def engine(name: str) -> Any:
    """The session class of an engine; InputError if it is unknown or not installed."""
    if name not in ENGINES:
        raise unknown("engine", name, ENGINES)
    required(ENGINES[name].package, name)
    return ENGINES[name]


def required(package: str, purpose: str) -> Any:
    """A package of the extra "deploy"; InputError with the command that installs it, if it is missing."""
    if find_spec(package) is None:
        raise InputError(
            f"'{purpose}' needs the package {package}, which is not installed: pip install 'igcv[deploy]'"
        )
    return import_module(package)


def version_of(name: str) -> str:
    """Name and version of the package behind an engine."""
    package = ENGINES[name].package
    return f"{package} {import_module(package).__version__}"
