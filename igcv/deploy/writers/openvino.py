"""OpenVINO writer, which converts the ONNX graph in full precision."""

from collections.abc import Mapping
from io import BytesIO
from pathlib import Path

from torch import Tensor, nn

from igcv.deploy.writers.onnx import Rewrite, settled_graph
from igcv.deploy.writers.settings import ExportSettings
from igcv.extras import required


def write_openvino(
    network: nn.Module,
    example: Tensor,
    path: Path,
    settings: ExportSettings,
    metadata: Mapping[str, str],
    rewrite: Rewrite | None = None,
) -> None:
    """Write a folded network as an .xml file and a .bin file with the weights.

    The conversion precomputes everything that does not depend on the images.
    `igcv.deploy.writers.onnx.write_onnx` describes the arguments.
    """
    ov = required("openvino", "openvino", "deploy")
    model = settled_graph(network, example, settings, metadata, rewrite)
    converted = ov.convert_model(BytesIO(model.SerializeToString()))
    for key, value in metadata.items():
        converted.set_rt_info(value, key)
    ov.save_model(converted, str(path), compress_to_fp16=False)
