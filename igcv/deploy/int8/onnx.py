"""Static int8 quantization of ONNX graphs with ONNX Runtime."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from igcv.deploy.int8.prepare import BATCH
from igcv.extras import required


class CalibrationReader:
    """Iterator over batches of calibration images, for ONNX Runtime."""

    def __init__(self, name: str, images: np.ndarray) -> None:
        self.name = name
        self.batches = iter([images[start : start + BATCH] for start in range(0, len(images), BATCH)])

    def get_next(self) -> dict[str, np.ndarray] | None:
        batch = next(self.batches, None)
        return None if batch is None else {self.name: batch}


@contextmanager
def _errors_only() -> Iterator[None]:
    """Log only errors: the quantizer advises preprocessing, which folding already does."""
    before = logging.root.level
    logging.root.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logging.root.setLevel(before)


def quantize(model: Any, given: np.ndarray) -> Any:
    """Return an ONNX model with its convolutions and linear layers in int8.

    Args:
        model: onnx.ModelProto of a prepared network.
        given: calibration images in the input format of the model.
    """
    required("onnxruntime", "int8", "deploy")
    import onnx
    from onnxruntime.quantization import CalibrationMethod, QuantFormat, QuantType, quantize_static

    metadata = {entry.key: entry.value for entry in model.metadata_props}
    with tempfile.TemporaryDirectory() as folder, _errors_only():
        source, target = Path(folder) / "float.onnx", Path(folder) / "int8.onnx"
        onnx.save(model, source)
        quantize_static(
            source,
            target,
            CalibrationReader(model.graph.input[0].name, given),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            reduce_range=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            calibrate_method=CalibrationMethod.MinMax,
            # Engines quantize biases when they open the file. Stored quantized biases take twice the space.
            extra_options={"QuantizeBias": False},
        )
        quantized = onnx.load(target)
    compact(quantized)
    onnx.helper.set_model_props(quantized, metadata)
    return quantized


def compact(model: Any) -> None:
    """Store equal constants once, and give the values inside the graph short names."""
    first: dict[tuple[Any, ...], str] = {}
    names: dict[str, str] = {}
    constants = []
    for constant in model.graph.initializer:
        content = (constant.data_type, *constant.dims, constant.raw_data or constant.SerializeToString())
        if content not in first:
            first[content] = constant.name
            constants.append(constant)
        names[constant.name] = first[content]
    del model.graph.initializer[:], model.graph.value_info[:]
    model.graph.initializer.extend(constants)
    outside = (*model.graph.input, *model.graph.output)
    short = {"": ""} | {value.name: value.name for value in outside}  # "" is an omitted input
    for node in model.graph.node:
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            node.ClearField("name")
        for values in (node.input, node.output):
            for i, value in enumerate(values):
                kept = names.get(value, value)
                values[i] = short.setdefault(kept, f"{len(short):x}")
    for constant in model.graph.initializer:
        constant.name = short[constant.name]
