"""Images to compare on and to quantize with: of a data source, or cut from two photographs."""

from contextlib import closing
from itertools import islice

import numpy as np
import torch
from PIL import Image

from igcv.classifier import Classifier
from igcv.data import DataSource, Finish, Images, StreamImages, plain_transform
from igcv.data.classes import NAME
from igcv.data.preprocessing import Preprocessing
from igcv.errors import InputError
from igcv.extras import required


def matching_source(classifier: Classifier, data: str | DataSource | None, match: str = NAME) -> DataSource:
    """Return images of a network's classes, with its labels: those that `data` names, or those of the training run.

    Args:
        classifier: the network.
        data: the images.
        match: how their classes are matched with the network's, by "name" or by "order".

    Raises:
        InputError: where there are none, or they are of other classes or much smaller than the network's input.
    """
    source = data if isinstance(data, DataSource) else classifier.open_data(data, download=False)
    if (size := source.image_size) is not None and size < classifier.card.input_size // 4:
        raise InputError(
            f"{source.spec} has images of {size} pixels, the network takes {classifier.card.input_size}; "
            "give images like those it was trained on"
        )
    return classifier.labelled(source, match)


def own_source(classifier: Classifier, match: str = NAME) -> tuple[DataSource | None, str]:
    """Return the data of the training run, or None and why it cannot be had."""
    try:
        return matching_source(classifier, None, match), ""
    except InputError as error:
        return None, str(error)


def numbered(images: Images | StreamImages | None) -> Images | None:
    """The images where they can be read by number; None for a stream."""
    return None if isinstance(images, StreamImages) else images


def sample_pixels(
    source: DataSource | None, pre: Preprocessing, count: int, train: bool = False
) -> np.ndarray:
    """Some images as bytes, uint8 (N, S, S, 3): of a data source, evenly spread, or cut from two photographs.

    Args:
        source: where to take them from; None: the photographs that come with scikit-learn.
        pre: how to resize and crop them.
        count: how many at most.
        train: from the training part, where the source has one.
    """
    transform = plain_transform(pre)
    chosen = _views(count) if source is None else _of_source(source, count, train)
    return np.stack([transform(image).permute(1, 2, 0).numpy() for image in chosen])


def _of_source(source: DataSource, count: int, train: bool) -> list[Image.Image]:
    """Images of a data source, of the wanted part or else of the other one, evenly spread where it is no stream."""
    parts = (source.train, source.val) if train else (source.val, source.train)
    images = next(part for part in parts if part is not None)
    if isinstance(images, StreamImages):
        return _of_stream(images, count, train)
    return [images[i][0] for i in evenly(count, len(images))]


def _of_stream(images: StreamImages, count: int, train: bool) -> list[Image.Image]:
    """The first readable images of a stream, which comes in another order for training."""
    with closing(images.samples(train=train)) as samples:
        readable = (sample.image for sample in samples if sample.image is not None)
        return list(islice(readable, count))


def evenly(count: int, total: int) -> list[int]:
    """At most `count` of the numbers below `total`, evenly spread."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def _views(count: int) -> list[Image.Image]:
    """Squares cut out of two photographs, from left to right."""
    required("sklearn", "two photographs", "deploy")
    from sklearn.datasets import load_sample_images  # slow to import, needed here only

    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    views = []
    for i in range(count):
        photo = photos[i % 2]
        left = (photo.width - photo.height) * i // max(count - 1, 1)
        views.append(photo.crop((left, 0, left + photo.height, photo.height)))
    return views


def normalized(pixels: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """uint8 (N, S, S, 3) -> the network's input, float32 (N, 3, S, S)."""
    finish = Finish(pre, channels_last=False)
    return finish(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
