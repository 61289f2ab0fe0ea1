"""Many images classified: files and folders of images, each with its class, or why it cannot be read."""

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

UNKNOWN = "unknown"  # the answer below the threshold
DECODERS = 8  # threads that decode images, at most
Progress = Callable[[int, int], None]  # how many images are done, and of how many
_Answer = tuple[Prediction, ...] | InputError


@dataclass(frozen=True)
class ImagePrediction:
    """The answer for one image.

    Attributes:
        file: the image file; empty for an image in memory.
        name: the most probable class, "unknown" below the threshold, or empty for an unreadable image.
        probability: of the most probable class, 0 to 1; None for an unreadable image.
        true_class: the class whose folder the file lies in; None where that is not known.
        predictions: the most probable classes, most probable first.
        error: why the image cannot be read; empty if it can.
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
    name: str  # what messages call it
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
    """Classify images; `igcv predict`.

    An unreadable image becomes an entry with an error, and the others are classified.

    Args:
        network: a classifier, which stays as it is, or what `igcv.load` opens.
        images: paths of image files and folders of images, PIL images, arrays uint8 (H, W, 3) of red, green and blue,
            bytes of image files, or files opened as bytes; one of them, or several. Folders are searched recursively
            for the usual endings, in the order of their paths; hidden files and folders are skipped.
        top: number of top predictions per image; None: all classes.
        threshold: probability from 0 to 1 below which the answer is "unknown".
        device: "auto", "cpu", "cuda", "cuda:N" or "mps"; a classifier stays on its own.
        batch_size: images at a time.
        progress: callback after each batch, with the images that are done and the images in all.

    Raises:
        InputError: the network cannot be opened, a path does not exist or is a URL, a folder holds no images, an array
            has another shape or type, or a number is out of its range.
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
    """As `predict`, with the answers of a batch as soon as they are known; what is wrong shows before the first one."""
    for name, value, low, high in (
        ("threshold", threshold, 0, 1),
        ("top", top, 1, float("inf")),
        ("batch_size", batch_size, 1, float("inf")),
    ):
        if value is not None and not low <= value <= high:
            raise InputError(
                f"{name}: got {value}, expected {low} {'to 1' if high == 1 else 'or more'}. Change it"
            )
    classifier = as_classifier(network, choose_device(device))
    if next(classifier.model.parameters()).device.type == "cpu":
        keep_freed_memory()  # a batch takes a third of the time then
    max_pixels()  # else every image would be told that the limit is wrong
    found = find_images(as_list(images), classifier.class_names)
    batches = _in_batches(classifier, found, batch_size, top or len(classifier.class_names))
    return _entries(batches, threshold, len(found), progress or (lambda done, total: None))


def _entries(
    batches: Iterable[list[tuple[_Found, _Answer]]], threshold: float, total: int, progress: Progress
) -> Iterator[list[ImagePrediction]]:
    """Yield the entries of each batch, and tell how many images are done."""
    done = 0
    for batch in batches:
        yield [_entry(wanted, answer, threshold) for wanted, answer in batch]
        done += len(batch)
        progress(done, total)


def find_images(given: Sequence[ImageLike], class_names: Sequence[str]) -> list[_Found]:
    """Return the images that files and folders stand for, each with its class where its folder tells it.

    Raises:
        InputError: a path does not exist, or a folder holds no images.
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
    """A line that says how many image files in the folders among some images are not read; empty if there are none."""
    folders = (Path(image) for image in given if isinstance(image, PATHS) and os.path.isdir(image))
    return skipped_line(sum(map(unread_images, folders), Counter()))


def _class_of_folder(file: str | Path, top: Path, names: dict[str, str]) -> str | None:
    """Return the class that the nearest folder around `file`, up to `top`, is named after."""
    for folder in Path(os.path.abspath(file)).parents:
        if name := names.get(composed(folder.name)):
            return name
        if folder == Path(os.path.abspath(top)):
            break
    return None


def _in_batches(
    classifier: Classifier, found: Sequence[_Found], batch_size: int, top: int
) -> Iterator[list[tuple[_Found, _Answer]]]:
    """Yield the answers batch by batch; the images of the next one are decoded meanwhile."""
    transform = plain_transform(classifier.preprocessing)

    def decoded(wanted: _Found) -> Tensor | InputError:
        try:
            return transform(open_image(wanted.image, wanted.name))
        except InputError as error:
            return error

    with ThreadPoolExecutor(min(available_cores(), DECODERS)) as pool:
        waiting: list[tuple[_Found, Future[Tensor | InputError]]] = []
        for start in range(0, len(found) + batch_size, batch_size):  # the last one only waits
            part = found[start : start + batch_size]
            ready, waiting = waiting, [(wanted, pool.submit(decoded, wanted)) for wanted in part]
            if ready:
                answers = _classify(classifier, [future.result() for _, future in ready], top)
                yield [(wanted, answer) for (wanted, _), answer in zip(ready, answers, strict=True)]


@torch.inference_mode()
def _classify(classifier: Classifier, images: Sequence[Tensor | InputError], top: int) -> list[_Answer]:
    """Return the answers for a batch of images (3, S, S) uint8, or the errors in place of some."""
    good = [image for image in images if isinstance(image, Tensor)]
    if not good:
        return [image for image in images if isinstance(image, InputError)]
    device = next(classifier.model.parameters()).device
    pixels = Finish(classifier.preprocessing, device)(torch.stack(good))
    rows = map(tuple, classifier.ranked(classifier.model(pixels).float().softmax(-1), top))
    return [next(rows) if isinstance(image, Tensor) else image for image in images]


def _entry(wanted: _Found, answer: _Answer, threshold: float) -> ImagePrediction:
    """The answer for an image, with what is known of it."""
    file = wanted.name if isinstance(wanted.image, PATHS) else ""
    if isinstance(answer, InputError):
        return ImagePrediction(file, "", None, wanted.true_class, (), str(answer))
    best = answer[0]
    is_unknown = best.probability < threshold
    name = UNKNOWN if is_unknown else best.name
    return ImagePrediction(file, name, best.probability, wanted.true_class, answer, is_unknown=is_unknown)
