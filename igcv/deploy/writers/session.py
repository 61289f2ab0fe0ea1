"""Sessions of folded networks, without a file."""

import torch
from torch import Tensor, nn

from igcv.engines.pytorch import TorchSession
from igcv.engines.session import Session
from igcv.engines.table import engine as find_engine
from igcv.extras import required


def session_of(network: nn.Module, images: Tensor, engine: str, threads: int | None = None) -> Session:
    """Return a session that runs a folded network in an engine.

    Args:
        network: the folded network.
        images: an example input, float32 (N, 3, S, S) or uint8 (N, S, S, 3).
        engine: a name in `igcv.engines.table.ENGINES`.
        threads: number of threads of the engine; None: PyTorch's number.
    """
    session = find_engine(engine)
    if session is TorchSession:
        return TorchSession(network, threads or torch.get_num_threads())
    required("onnx", engine, "deploy")
    from igcv.deploy.writers.onnx import onnx_graph

    return session(onnx_graph(network, images).SerializeToString(), threads)
