"""Predictions for many images: files, folders of images, and images in memory."""

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from igcv.classifier import Classifier, Prediction, as_classifier
from igcv.data.decoding import max_pixels
from igcv.data.finish import Finish
from igcv.data.formats import skipped_line
from igcv.data.given import PATHS, ImageLike, as_list, name_of, open_image
from igcv.data.preprocessing import plain_transform
from igcv.data.sources.folders import image_files, unread_images
from igcv.data.sources.listed import composed
from igcv.errors import InputError
from igcv.machine.memory import keep_freed_memory
from igcv.machine.processes import choose_device
from igcv.machine.threads import available_cores

UNKNOWN = "unknown"  # the class name for a probability below the threshold
DECODERS = 8  # maximum number of decoding threads
Progress = Callable[[int, int], None]  # arguments: number of finished images, total
_Answer = tuple[Prediction, ...] | InputError


@dataclass(frozen=True)
class ImagePrediction:
    """Prediction for one image.

    Attributes:
        file: path of the image file; empty for an image in memory.
        name: the predicted class, "unknown" below the threshold, or empty for an unreadable image.
        probability: probability of the predicted class, 0 to 1; None for an unreadable image.
        true_class: the class after which a folder around the file is named; None if there is none.
        predictions: the top predictions, most probable first.
        error: why the image cannot be read; empty for a readable image.
        is_unknown: whether the probability is below the threshold.
    """

    file: str
    name: str
    probability: float | None
    true_class: str | None
    predictions: tuple[Prediction, ...]
    error: str = ""
    is_unknown: bool = False


class _Found(NamedTuple):
    """An image to classify."""

    image: ImageLike
    name: str  # name in messages
    true_class: str | None


def predict(
    network: Classifier | str | Path,
    images: ImageLike | Iterable[ImageLike],
    *,
    top: int | None = 5,
    threshold: float = 0.0,
    device: str = "auto",
    batch_size: int = 32,
    progress: Progress | None = None,
) -> list[ImagePrediction]:
    """Classify images, as `igcv predict` does.

    An unreadable image becomes an entry with an error, and the others are classified.

    Args:
        network: a classifier, which stays unchanged, or anything that `igcv.load` opens.
        images: one image or several: paths of image files or folders, PIL images, uint8 arrays (H, W, 3) of red, green
            and blue, bytes of image files, or files opened in binary mode. Folders are searched recursively for
            supported images, in path order. Hidden files and folders are skipped.
        top: number of top predictions per image; None: all classes.
        threshold: probability from 0 to 1 below which the predicted class is "unknown".
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; a classifier stays on its own device.
        batch_size: images per batch.
        progress: callback after each batch, with the number of finished images and the total.

    Raises:
        InputError: the network cannot be opened, a path does not exist or is a URL, a folder has no images, an array
            has the wrong shape or type, or a number is out of range.
    """
    parts = predict_in_batches(
        network,
        images,
        top=top,
        threshold=threshold,
        device=device,
        batch_size=batch_size,
        progress=progress,
    )
    return [entry for part in parts for entry in part]


def predict_in_batches(
    network: Classifier | str | Path,
    images: ImageLike | Iterable[ImageLike],
    *,
    top: int | None = 5,
    threshold: float = 0.0,
    device: str = "auto",
    batch_size: int = 32,
    progress: Progress | None = None,
) -> Iterator[list[ImagePrediction]]:
    """Yield the predictions of `predict` batch by batch; invalid arguments raise before the first batch."""
    for name, value, low, high in (
        ("threshold", threshold, 0, 1),
        ("top", top, 1, float("inf")),
        ("batch_size", batch_size, 1, float("inf")),
    ):
        if value is not None and not low <= value <= high:
            raise InputError(f"{name}: got {value}, expected {low} {'to 1' if high == 1 else 'or more'}")
    classifier = as_classifier(network, choose_device(device))
    if next(classifier.model.parameters()).device.type == "cpu":
        keep_freed_memory()  # reduces the time per batch to a third
    max_pixels()  # reports an invalid limit once, not for every image
    found = find_images(as_list(images), classifier.class_names)
    batches = _in_batches(classifier, found, batch_size, top or len(classifier.class_names))
    return _entries(batches, threshold, len(found), progress or (lambda done, total: None))


def _entries(
    batches: Iterable[list[tuple[_Found, _Answer]]], threshold: float, total: int, progress: Progress
) -> Iterator[list[ImagePrediction]]:
    """Yield the entries of each batch and report the number of finished images."""
    done = 0
    for batch in batches:
        yield [_entry(wanted, answer, threshold) for wanted, answer in batch]
        done += len(batch)
        progress(done, total)


def find_images(given: Sequence[ImageLike], class_names: Sequence[str]) -> list[_Found]:
    """Return the images of files and folders, each with its true class if a folder is named after the class.

    Raises:
        InputError: a path does not exist, or a folder has no images.
    """
    names = {composed(name): name for name in class_names}
    found = []
    for number, image in enumerate(given):
        name = name_of(image, number)
        if not isinstance(image, PATHS):
            found.append(_Found(image, name, None))
        elif os.path.isdir(image):
            folder = Path(image)
            files = image_files(folder)
            if not files:
                skipped = skipped_line(unread_images(folder))
                raise InputError(
                    f"'{image}': no images in the folder, expected files such as .jpg or .png. "
                    f"{skipped or 'Give another folder'}"
                )
            found += [_Found(file, file, _class_of_folder(file, folder, names)) for file in files]
        elif os.path.exists(image):
            found.append(_Found(image, name, _class_of_folder(name, Path(image).parent, names)))
        else:
            raise InputError(f"file not found: '{image}'. Give image files or folders that exist")
    return found


def skipped_images(given: Iterable[ImageLike]) -> str:
    """Return a line about unsupported image files in the given folders; empty if there are none."""
    folders = (Path(image) for image in given if isinstance(image, PATHS) and os.path.isdir(image))
    return skipped_line(sum(map(unread_images, folders), Counter()))


def _class_of_folder(file: str | Path, top: Path, names: dict[str, str]) -> str | None:
    """Return the class after which the nearest folder around `file`, up to `top`, is named; None without one."""
    for folder in Path(os.path.abspath(file)).parents:
        if name := names.get(composed(folder.name)):
            return name
        if folder == Path(os.path.abspath(top)):
            break
    return None


def _in_batches(
    classifier: Classifier, found: Sequence[_Found], batch_size: int, top: int
) -> Iterator[list[tuple[_Found, _Answer]]]:
    """Yield the answers batch by batch, while the images of the next batch are decoded."""
    transform = plain_transform(classifier.preprocessing)

    def decoded(wanted: _Found) -> Tensor | InputError:
        try:
            return transform(open_image(wanted.image, wanted.name))
        except InputError as error:
            return error

    with ThreadPoolExecutor(min(available_cores(), DECODERS)) as pool:
        waiting: list[tuple[_Found, Future[Tensor | InputError]]] = []
        for start in range(0, len(found) + batch_size, batch_size):  # the last iteration only collects
            part = found[start : start + batch_size]
            ready, waiting = waiting, [(wanted, pool.submit(decoded, wanted)) for wanted in part]
            if ready:
                answers = _classify(classifier, [future.result() for _, future in ready], top)
                yield [(wanted, answer) for (wanted, _), answer in zip(ready, answers, strict=True)]


@torch.inference_mode()
def _classify(classifier: Classifier, images: Sequence[Tensor | InputError], top: int) -> list[_Answer]:
    """Classify a batch of images (3, S, S) uint8; errors in the batch are returned in their places."""
    good = [image for image in images if isinstance(image, Tensor)]
    if not good:
        return [image for image in images if isinstance(image, InputError)]
    device = next(classifier.model.parameters()).device
    pixels = Finish(classifier.preprocessing, device)(torch.stack(good))
    rows = map(tuple, classifier.ranked(classifier.model(pixels).float().softmax(-1), top))
    return [next(rows) if isinstance(image, Tensor) else image for image in images]


def _entry(wanted: _Found, answer: _Answer, threshold: float) -> ImagePrediction:
    """Return the entry for an image and its answer."""
    file = wanted.name if isinstance(wanted.image, PATHS) else ""
    if isinstance(answer, InputError):
        return ImagePrediction(file, "", None, wanted.true_class, (), str(answer))
    best = answer[0]
    is_unknown = best.probability < threshold
    name = UNKNOWN if is_unknown else best.name
    return ImagePrediction(file, name, best.probability, wanted.true_class, answer, is_unknown=is_unknown)
