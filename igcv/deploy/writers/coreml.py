"""Core ML writer (.mlpackage, a folder): coremltools converts a torch.export program.

The package takes an image and gives the logits, the most probable class, and the probabilities by class name. The
preprocessing is part of the network, because an image input of Core ML has one scale for all channels.

Shapes: N images, H x W pixels.
"""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.coreml import INPUT, OUTPUT, SPEC
from igcv.extras import required
from igcv.silence import silent
from igcv.weights.card import CARD_KEY, Card

# Operations of the preprocessing: float16 would round the mean to a 16th of a gray level.
IN_FLOAT32 = ("sub", "mul", "real_div")


class Package(nn.Module):
    """Network with the inputs and outputs of a package: image (N, 3, H, W) -> logits and probabilities.

    Args:
        network: network with preprocessing, uint8 images (N, H, W, 3) -> logits.
    """

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        logits = self.network(image.permute(0, 2, 3, 1))
        return logits, logits.softmax(-1)


def write_coreml(
    network: nn.Module, example: Tensor, path: Path, settings: ExportSettings, metadata: Mapping[str, str]
) -> None:
    """Write a folded network with preprocessing as a Core ML package.

    Args:
        network: the network, uint8 images (N, S, S, 3) -> logits.
        example: an input of one image.
        path: the package, a folder.
        settings: the export settings. With `float16`, the package also computes in float16.
        metadata: texts by name to store in the package: the card under `CARD_KEY`.
    """
    card = Card.from_json(metadata[CARD_KEY], path)
    coremltools = required("coremltools", "coreml", "coreml")
    image = example.permute(0, 3, 1, 2).float().contiguous()
    with silent():
        program = torch.export.export(Package(network), (image,)).run_decompositions({})
        logits, probabilities = program.graph_signature.user_outputs
        model = coremltools.convert(
            program,
            inputs=[coremltools.ImageType(INPUT, image.shape, color_layout=coremltools.colorlayout.RGB)],
            classifier_config=coremltools.ClassifierConfig(
                labels(card), predicted_probabilities_output=probabilities
            ),
            compute_precision=_precision(coremltools, settings.float16),
            convert_to="mlprogram",
            package_dir=str(path),
            skip_model_load=True,
        )
        spec = model.get_spec()
        coremltools.utils.rename_feature(
            spec, logits, OUTPUT
        )  # `convert` cannot name outputs of a classifier
    about = spec.description.metadata
    about.userDefined.update(metadata)
    pixels = f"{card.input_size} x {card.input_size} pixels"
    about.shortDescription = f"{card.model}: image classifier, {pixels}, {card.num_classes} classes"
    about.license = str(card.source.get("license", ""))
    file = path / SPEC
    file.unlink()  # coremltools writes a file that only its owner can read
    file.write_bytes(spec.SerializeToString())


def _precision(coremltools: Any, float16: bool) -> Any:
    """Return the precision of the operations of a package."""
    if not float16:
        return coremltools.precision.FLOAT32
    return coremltools.transform.FP16ComputePrecision(lambda op: op.op_type not in IN_FLOAT32)


def labels(card: Card) -> list[str]:
    """Return the class names of a card, or the labels as text. A repeated name gets its label: Core ML needs one each.

    >>> labels(Card(model="", num_classes=3, input_size=1, strides=(), class_names=("crane", "cup", "crane")))
    ['crane (0)', 'cup', 'crane (2)']
    """
    counts = Counter(card.names)
    return [name if counts[name] == 1 else f"{name} ({label})" for label, name in enumerate(card.names)]
