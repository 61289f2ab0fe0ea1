"""Misclassified images with the highest loss, collected during an evaluation."""

import base64
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from io import BytesIO
from itertools import chain
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from igcv.data import as_pixels
from igcv.data.preprocessing import Preprocessing
from igcv.machine.processes import gather

MOST = 24  # maximum number of images
GUESSES = 5  # top predictions per image
PICTURE = 160  # pixels, maximum longest side of an image in a report
LOSSLESS = 64  # pixels, longest side up to which a PNG is no larger than a JPEG
Names = Callable[[int], Sequence[str]]


@dataclass(frozen=True)
class Mistake:
    """A misclassified image."""

    name: str
    label: int
    loss: float  # cross-entropy in nats
    guesses: list[tuple[int, float]]  # the top predictions with their probabilities, 0 to 1
    image: Tensor  # the network's input, float (3, S, S), on the CPU

    def as_dict(self, preprocessing: Preprocessing) -> dict[str, Any]:
        """Return the attributes as a dictionary ready for JSON, with the image as a data URI."""
        pixels = as_pixels(self.image[None].float().numpy(), preprocessing)[0]
        return {
            "image": self.name,
            "label": self.label,
            "loss": round(self.loss, 4),
            "guesses": [[label, round(probability, 5)] for label, probability in self.guesses],
            "picture": data_uri(Image.fromarray(pixels)),
        }


def data_uri(picture: Image.Image) -> str:
    """Return an image as a data URI for a page, scaled down in place to at most `PICTURE` pixels."""
    small = max(picture.size) <= LOSSLESS
    picture.thumbnail((PICTURE, PICTURE))
    file = BytesIO()
    kind = "png" if small else "jpeg"
    picture.save(file, kind, quality=85)
    return f"data:image/{kind};base64,{base64.b64encode(file.getvalue()).decode()}"


class Worst:
    """Collector of the misclassified images with the highest loss; only `mistakes` waits for the device."""

    def __init__(self) -> None:
        self._kept: tuple[Tensor, ...] = ()

    def add(self, batch: int, images: Tensor, labels: Tensor, logits: Tensor, losses: Tensor) -> None:
        """Add batch number `batch`: images (N, 3, S, S), labels and losses (N,), logits (N, classes)."""
        wrong = logits.argmax(1) != labels
        highest, rows = losses.where(wrong, -1).topk(min(MOST, len(labels)))
        found: tuple[Tensor, ...]
        found = (highest, torch.full_like(rows, batch), rows, labels[rows], logits[rows], images[rows])
        if self._kept:
            found = tuple(torch.cat(pair) for pair in zip(self._kept, found, strict=True))
        best = found[0].topk(min(MOST, len(found[0]))).indices
        self._kept = tuple(tensor[best] for tensor in found)

    def mistakes(self, names: Names) -> list[Mistake]:
        """Return the misclassified images of all processes, highest loss first.

        Args:
            names: function that returns the names of the images in a batch, by the batch's number.
        """
        own = list(self._own(names))
        losses = sorted((loss for part in gather([m.loss for m in own]) for loss in part), reverse=True)
        least = losses[:MOST][-1] if losses else 0.0
        # Images are large, so only those that may be kept are sent to the other processes.
        shared = chain.from_iterable(gather([m for m in own if m.loss >= least]))
        return sorted(shared, key=lambda m: -m.loss)[:MOST]

    def _own(self, names: Names) -> list[Mistake]:
        found = []
        for loss, batch, row, label, logits, image in zip(*(t.cpu() for t in self._kept), strict=True):
            if loss < 0:
                continue
            probable = logits.double().softmax(0).topk(min(GUESSES, len(logits)))
            guesses = list(zip(probable.indices.tolist(), probable.values.tolist(), strict=True))
            called = names(int(batch))
            name = called[int(row)] if called else ""
            found.append(Mistake(name, int(label), float(loss), guesses, image))
        return found
