"""MNN for the comparison of mobile engines. igcv has no export for MNN, so MNN converts an ONNX file of igcv."""

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from torch import Tensor, nn

from igcv.deploy.writers.onnx import onnx_graph
from igcv.engines.session import Inference, check_images

BATCH = 1


class MnnSession:
    """Session of MNN on the CPU, in float32, for one image at a time.

    Args:
        path: file of a network, as converted by MNN.
        threads: number of threads.
    """

    card = ""

    def __init__(self, path: Path, threads: int) -> None:
        import MNN

        self.mnn: Any = MNN
        self.interpreter = MNN.Interpreter(str(path))
        how = {"backend": "CPU", "numThread": threads, "precision": "high"}
        self.session = self.interpreter.createSession(how)
        self.given = self.interpreter.getSessionInput(self.session)
        self.found = self.interpreter.getSessionOutput(self.session)

    def bind(self, images: np.ndarray) -> Inference:
        shape = tuple(self.given.getShape())
        check_images(images, shape[1:], pixels=False)
        assert len(images) == BATCH
        held = self._tensor(np.ascontiguousarray(images))
        logits = self._tensor(np.zeros(self.found.getShape(), np.float32))

        def run() -> np.ndarray:
            self.given.copyFrom(held)
            self.interpreter.runSession(self.session)
            self.found.copyToHostTensor(logits)
            return logits.getNumpyData().copy()

        return run

    def _tensor(self, array: np.ndarray) -> Any:
        """Return a copy of an array in MNN's memory."""
        order = self.mnn.Tensor_DimensionType_Caffe
        return self.mnn.Tensor(array.shape, self.mnn.Halide_Type_Float, array, order)


def mnn_session(network: nn.Module, images: Tensor, threads: int) -> MnnSession:
    """Return a session that runs a folded network in MNN."""
    # The command mnnconvert would install a package and report the conversion to a server; this module does not.
    import _tools

    model = onnx_graph(network, images)
    model.graph.input[0].type.tensor_type.shape.dim[0].dim_value = BATCH
    with TemporaryDirectory() as folder:
        source, target = Path(folder) / "network.onnx", Path(folder) / "network.mnn"
        source.write_bytes(model.SerializeToString())
        files = ("--modelFile", str(source), "--MNNModel", str(target))
        _tools.mnnconvert(["mnnconvert", "-f", "ONNX", *files])
        return MnnSession(target, threads)
