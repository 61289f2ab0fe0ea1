"""Images whose classes are known by other names than those of a network: ImageNet's folders, named by synset."""

from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from igcv.data import DataSource, Images, StreamImages
from igcv.data.sources.listed import PARTS
from igcv.weights.card import Card


class RelabeledImages:
    """Images with the labels of a network; can be pickled to loader processes."""

    def __init__(self, images: Images, numbers: np.ndarray) -> None:
        self.images, self.numbers, self.labels = images, numbers, numbers[images.labels]

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, i: int) -> tuple[Image.Image, int]:
        image, label = self.images[i]
        return image, int(self.numbers[label])

    def name(self, i: int) -> str:
        return self.images.name(i)

    def key(self, i: int) -> str:
        return self.images.key(i)


def by_synset(source: DataSource, card: Card) -> DataSource:
    """Return a source with the classes of a network, if all its class names are identifiers of these classes.

    A source may lack some of the classes. Any other source is returned as it is.
    """
    places = {name: label for label, name in enumerate(card.class_ids)}
    if not all(name in places for name in source.class_names):
        return source
    numbers = np.array([places[name] for name in source.class_names], np.int64)

    parts: dict[str, Any] = {}
    for part in PARTS:
        images = getattr(source, part)
        if isinstance(images, StreamImages):
            return source
        parts[part] = None if images is None else RelabeledImages(images, numbers)
    return replace(source, class_names=card.class_ids, **parts)
