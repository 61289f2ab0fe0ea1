"""Image arguments of `igcv.predict` and `Classifier.predict`: one or several, of every type."""

from collections.abc import Callable
from io import BytesIO, StringIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import igcv
from igcv.classifier import Classifier
from igcv.data.given import as_list, open_image
from igcv.data.preprocessing import CIFAR
from igcv.weights.card import Card
from tests.conftest import randomized

PHOTO = Image.fromarray(load_sample_images().images[0]).resize((64, 48))


@pytest.fixture(scope="module")
def classifier() -> Classifier:
    network = randomized("igcv3_w_010", 5)
    card = Card(
        model="igcv3_w_010",
        num_classes=5,
        input_size=32,
        strides=network.strides,
        preprocessing=CIFAR.to_dict(),
    )
    return Classifier(network, card)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    PHOTO.save("photo.png")
    return Path("photo.png")


KINDS: dict[str, Callable[[Path], Any]] = {
    "text": str,
    "Path": lambda file: file,
    "PIL image": lambda file: PHOTO,
    "PIL image from a file": Image.open,
    "array": lambda file: np.asarray(PHOTO),
    "view of an array": lambda file: np.asarray(PHOTO)[..., ::-1].copy()[..., ::-1],
    "bytes": Path.read_bytes,
    "bytearray": lambda file: bytearray(file.read_bytes()),
    "memoryview": lambda file: memoryview(file.read_bytes()),
    "BytesIO": lambda file: BytesIO(file.read_bytes()),
    "open file": lambda file: file.open("rb"),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.filterwarnings("ignore::ResourceWarning")
def test_every_kind_alone_and_in_a_list(kind: str, file: Path, classifier: Classifier) -> None:
    given = KINDS[kind]
    expected = classifier.predict([PHOTO])[0]
    assert classifier.predict(given(file)) == [expected]
    assert classifier.predict([given(file), PHOTO]) == [expected, expected]
    assert classifier.predict(iter([given(file)])) == [expected]
    (found,) = igcv.predict(classifier, given(file))
    assert [guess.label for guess in found.predictions] == [guess.label for guess in expected]
    assert found.probability == pytest.approx(expected[0].probability, abs=1e-6)
    assert found.file == ("photo.png" if kind in ("text", "Path") else "") and not found.error
    assert len(igcv.predict(classifier, (given(file), given(file)))) == 2


def test_a_color_is_where_it_belongs() -> None:
    """Arrays are RGB; gray and transparent arrays are given as PIL images."""
    red = np.zeros((4, 4, 3), np.uint8)
    red[..., 0] = 255
    assert open_image(red, "x").getpixel((0, 0)) == (255, 0, 0)
    assert as_list([red])[0] is red


WRONG: dict[str, tuple[Any, str]] = {
    "URL": (
        "https://example.org/a.jpg",
        r"'https://example.org/a.jpg' is a URL, expected a path. Download the image and give its path",
    ),
    "URL as a Path": (Path("s3://photos/a.jpg"), r"'s3:/photos/a.jpg' is a URL, expected a path"),
    "float": (
        np.zeros((8, 8, 3), np.float32),
        r"images\[0\]: got an array float32 \(8, 8, 3\), expected a uint8 array \(H, W, 3\) .* Scale it to 0..255",
    ),
    "channels first": (
        np.zeros((3, 8, 8), np.uint8),
        r"uint8 \(3, 8, 8\), expected .* Give array.transpose\(1, 2, 0\)",
    ),
    "batch": (np.zeros((2, 8, 8, 3), np.uint8), r"uint8 \(2, 8, 8, 3\), expected .* Give list\(array\)"),
    "gray": (np.zeros((8, 8), np.uint8), r"uint8 \(8, 8\), expected .* Give PIL.Image.fromarray\(array\)"),
    "RGBA": (
        np.zeros((8, 8, 4), np.uint8),
        r"uint8 \(8, 8, 4\), expected .* Give PIL.Image.fromarray\(array\)",
    ),
    "no pixels": (
        np.zeros((0, 8, 3), np.uint8),
        r"uint8 \(0, 8, 3\), expected .* Give an array of this shape",
    ),
    "tensor": (
        torch.zeros(3, 8, 8),
        r"images\[0\]: got a Tensor torch.float32 \(3, 8, 8\), expected a path, a PIL",
    ),
    "number": (3, r"images: got a int, expected a path, a PIL image, a uint8 array"),
    "None": (None, r"images: got None, expected a path"),
    "None in a list": ([PHOTO, None], r"images\[1\]: got None, expected a path"),
    "dict": ({"a": 1}, r"images: got a dict, expected a path"),
}


@pytest.mark.parametrize("kind", WRONG)
def test_what_is_no_image_is_named(kind: str, classifier: Classifier) -> None:
    given, message = WRONG[kind]
    for predict in (classifier.predict, lambda images: igcv.predict(classifier, images)):
        with pytest.raises(igcv.InputError, match=message):
            predict(given)


@pytest.mark.parametrize(
    "given, message",
    [
        (b"nothing", r"images\[1\]: not a readable image \(unknown format\)"),
        (BytesIO(), r"images\[1\]: not a readable image"),
        (StringIO("text"), r"images\[1\]: got a file in text mode, .* Open the file with open\(path, 'rb'\)"),
        (
            Image.new("F", (4, 4)),
            r"images\[1\]: got 32-bit pixels \(mode F\), expected 8 or 16 bits. Convert the",
        ),
    ],
)
def test_what_cannot_be_read_is_an_answer_among_others(
    given: Any, message: str, classifier: Classifier
) -> None:
    with pytest.raises(igcv.InputError, match=message):
        classifier.predict([PHOTO, given])
    first, second = igcv.predict(classifier, [PHOTO, given])
    assert first.predictions and not second.predictions
    with pytest.raises(igcv.InputError, match=message):
        raise igcv.InputError(second.error)


def test_a_closed_file(file: Path, classifier: Classifier) -> None:
    with open(file, "rb") as closed:
        pass
    with pytest.raises(
        igcv.InputError, match=r"images\[0\]: the file cannot be read \(read of closed file\)"
    ):
        classifier.predict(closed)
