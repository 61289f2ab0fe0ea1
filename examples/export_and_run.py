"""Export a network to ONNX, run the file in ONNX Runtime, and write a page that runs it in the browser.

    python examples/export_and_run.py igcv3_d_p50.cifar10 photo.jpg

The function `classify` and `pixels.py` need ONNX Runtime, NumPy and Pillow: neither PyTorch nor igcv.
"""

import json
from argparse import ArgumentParser

import numpy as np
import onnxruntime
from pixels import pixels_of

import igcv


def classify(file: str, image: str) -> tuple[str, float]:
    """Return the most probable class of an 8-bit image and its probability.

    Args:
        file: ONNX file written with `with_preprocessing=True`; its metadata holds classes and preprocessing.
        image: image file.
    """
    session = onnxruntime.InferenceSession(file)
    card = json.loads(session.get_modelmeta().custom_metadata_map["igcv"])
    pixels = pixels_of(image, card["preprocessing"])  # uint8 (1, S, S, 3)
    (logits,) = session.run(None, {"images": pixels})[0]  # (1, classes)
    probabilities = np.exp(logits - logits.max()) / np.exp(logits - logits.max()).sum()
    best = int(probabilities.argmax())
    return card["class_names"][best], float(probabilities[best])


parser = ArgumentParser(description=__doc__.splitlines()[0])
parser.add_argument("network", help="run folder, weights file, or weights by name")
parser.add_argument("image", help="image to classify")
parser.add_argument("--page", default="page", help="folder for the browser page (default: page)")
arguments = parser.parse_args()

exported = igcv.export(arguments.network, "network.onnx", with_preprocessing=True, force=True)
print(
    f"{exported.file}: {exported.bytes / 1e6:.1f} MB, {exported.comparison.agreement:.0%} of the classes agree"
)
name, probability = classify("network.onnx", arguments.image)
print(f"{probability:7.2%}  {name}")

page = igcv.write_page(arguments.network, arguments.page, force=True)
print(f"igcv web {arguments.page} --serve 8000   # opens {page.folder} at http://127.0.0.1:8000")
