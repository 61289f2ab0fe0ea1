"""Script for the emulator: run a file of `igcv export` in its engine and store the logits.

The script needs only NumPy and the engine.

    DIR/python studies/arm/emulated.py FILE IMAGES.npy LOGITS.npy [--float16]

Each image is preceded and followed by os.getppid(), a mark for count.c.
"""

import argparse
import json
import os
import platform
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

Classify = Callable[[np.ndarray], np.ndarray]  # one image, float32 (3, S, S) -> logits, float32 (classes,)


def open_onnx(file: Path, float16: bool) -> Classify:
    """Return the classifier of a file for ONNX Runtime."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(file), options, providers=["CPUExecutionProvider"])
    name = session.get_inputs()[0].name
    return lambda image: session.run(None, {name: image[None]})[0][0]


def open_litert(file: Path, float16: bool) -> Classify:
    """Return the classifier of a file for LiteRT."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_path=str(file), num_threads=1)
    interpreter.allocate_tensors()
    (given,), (found,) = interpreter.get_input_details(), interpreter.get_output_details()

    def classify(image: np.ndarray) -> np.ndarray:
        interpreter.set_tensor(given["index"], np.ascontiguousarray(image.transpose(1, 2, 0)[None]))
        interpreter.invoke()
        return interpreter.get_tensor(found["index"])[0]

    return classify


def open_ncnn(file: Path, float16: bool) -> Classify:
    """Return the classifier of a file for ncnn, which computes in float16 with its default options."""
    import ncnn

    net = ncnn.Net()
    net.opt.num_threads = 1
    for option in () if float16 else ("use_fp16_packed", "use_fp16_storage", "use_fp16_arithmetic"):
        setattr(net.opt, option, False)
    if net.load_param(str(file)) or net.load_model(str(file.with_suffix(".bin"))):
        raise ValueError(f"ncnn cannot read '{file}'")

    def classify(image: np.ndarray) -> np.ndarray:
        extractor = net.create_extractor()
        extractor.input("images", ncnn.Mat(image))
        failed, logits = extractor.extract("logits")
        if failed:
            raise ValueError(f"ncnn cannot run '{file}' (status {failed})")
        return np.array(logits)

    return classify


ENGINES: dict[str, tuple[str, Any]] = {
    ".onnx": ("onnxruntime", open_onnx),
    ".tflite": ("ai-edge-litert", open_litert),
    ".param": ("ncnn", open_ncnn),
}


def main() -> None:
    """Run the file; print the package with its version, and the processor architecture, as JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("file", type=Path)
    parser.add_argument("images", type=Path, help="float32 (N, 3, S, S)")
    parser.add_argument("logits", type=Path, help="the file to write, float32 (N, classes)")
    parser.add_argument("--float16", action="store_true", help="ncnn: compute in float16")
    given = parser.parse_args()
    package, open_file = ENGINES[given.file.suffix]
    classify: Classify = open_file(given.file, given.float16)
    images = np.load(given.images)
    logits = []
    for image in images:
        os.getppid()
        logits.append(classify(image))
        os.getppid()
    np.save(given.logits, np.stack(logits))
    print(json.dumps({"runtime": f"{package} {version(package)}", "processor": platform.machine()}))


if __name__ == "__main__":
    main()
