"""Sessions of folded networks, without a file."""

from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from torch import Tensor, nn

from igcv.deploy.writers.settings import ExportSettings
from igcv.deploy.writers.table import WRITERS
from igcv.engines.pytorch import TorchSession
from igcv.engines.session import Session
from igcv.engines.table import engine as find_engine


def session_of(network: nn.Module, images: Tensor, engine: str, threads: int | None = None) -> Session:
    """Return a session that runs a folded network in an engine.

    Args:
        network: the folded network.
        images: an example input, float32 (N, 3, S, S) or uint8 (N, S, S, 3).
        engine: a name in `igcv.engines.table.ENGINES`.
        threads: number of threads of the engine; None: PyTorch's number.
    """
    session = find_engine(engine)
    threads = threads or torch.get_num_threads()
    if session is TorchSession:
        return TorchSession(network, threads)
    writer = WRITERS[engine].load()
    if engine in ("onnx", "openvino"):  # both read ONNX from memory
        from igcv.deploy.writers.onnx import onnx_graph

        return session(onnx_graph(network, images).SerializeToString(), threads)
    with TemporaryDirectory() as folder:
        file = Path(folder) / f"network{session.suffix}"
        writer(network, images, file, ExportSettings(format=engine), {})
        return session.open(file, threads)
