"""Images for comparison and calibration, from a data source or from two photographs."""

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
    """Return a data source with the labels of a network.

    Args:
        classifier: the network.
        data: the images; None: the images of the training run.
        match: how to match their classes with the classes of the network: by "name" or by "order".

    Raises:
        InputError: if the images are missing, have other classes, or are smaller than a quarter of the input size.
    """
    source = data if isinstance(data, DataSource) else classifier.open_data(data, download=False)
    if (size := source.image_size) is not None and size < classifier.card.input_size // 4:
        raise InputError(
            f"image size of '{source.spec}': got {size} pixels, expected about {classifier.card.input_size}. "
            "Give images similar to the training images."
        )
    return classifier.labeled(source, match)


def own_source(classifier: Classifier, match: str = NAME) -> tuple[DataSource | None, str]:
    """Return the data of the training run, or None and the reason."""
    try:
        return matching_source(classifier, None, match), ""
    except InputError as error:
        return None, str(error)


def numbered(images: Images | StreamImages | None) -> Images | None:
    """Return images that can be indexed; None for a stream."""
    return None if isinstance(images, StreamImages) else images


def sample_pixels(
    source: DataSource | None, pre: Preprocessing, count: int, train: bool = False
) -> np.ndarray:
    """Return sample images, uint8 (N, S, S, 3), from a data source or from two photographs.

    The samples are evenly spread over a data source, except for a stream, which gives its first images.

    Args:
        source: the data source; None: crops of the photographs of scikit-learn.
        pre: the preprocessing, for resizing and cropping.
        count: maximum number of images.
        train: prefer the training images of the source to its validation images.
    """
    transform = plain_transform(pre)
    chosen = _views(count) if source is None else _of_source(source, count, train)
    return np.stack([transform(image).permute(1, 2, 0).numpy() for image in chosen])


def _of_source(source: DataSource, count: int, train: bool) -> list[Image.Image]:
    """Return images of the preferred part of a data source, or of the other part if that is missing."""
    parts = (source.train, source.val) if train else (source.val, source.train)
    images = next(part for part in parts if part is not None)
    if isinstance(images, StreamImages):
        return _of_stream(images, count, train)
    return [images[i][0] for i in evenly(count, len(images))]


def _of_stream(images: StreamImages, count: int, train: bool) -> list[Image.Image]:
    """Return the first readable images of a stream. With `train`, the stream is shuffled."""
    with closing(images.samples(train=train)) as samples:
        readable = (sample.image for sample in samples if sample.image is not None)
        return list(islice(readable, count))


def evenly(count: int, total: int) -> list[int]:
    """Return at most `count` evenly spread indices below `total`."""
    return np.unique(np.linspace(0, total - 1, min(count, total)).round().astype(int)).tolist()


def _views(count: int) -> list[Image.Image]:
    """Return square crops of two photographs, from left to right."""
    required("sklearn", "two photographs", "deploy")
    from sklearn.datasets import load_sample_images  # slow to import

    photos = [Image.fromarray(pixels) for pixels in load_sample_images().images]
    views = []
    for i in range(count):
        photo = photos[i % 2]
        left = (photo.width - photo.height) * i // max(count - 1, 1)
        views.append(photo.crop((left, 0, left + photo.height, photo.height)))
    return views


def normalized(pixels: np.ndarray, pre: Preprocessing) -> np.ndarray:
    """Convert uint8 images (N, S, S, 3) to network input, float32 (N, 3, S, S)."""
    finish = Finish(pre, channels_last=False)
    return finish(torch.from_numpy(pixels).permute(0, 3, 1, 2)).numpy()
