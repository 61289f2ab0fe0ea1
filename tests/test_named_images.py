"""Images on the command line of igcv predict, and the streaming of its predictions."""

import io
import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

import igcv
from igcv.commands.images import named_images
from igcv.errors import InputError
from igcv.evaluation import predict_in_batches, predictions
from tests.conftest import Igcv, randomized

SIDE = 16


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a weights file with random weights."""
    from igcv.weights import save_weights
    from igcv.weights.card import Card

    network = randomized("igcv3_w_010", 2, SIDE)
    preprocessing = {"mean": [0.5] * 3, "std": [0.2] * 3, "crop": 1.0, "interpolation": "bilinear"}
    card = Card(
        model="igcv3_w_010",
        num_classes=2,
        input_size=SIDE,
        strides=network.strides,
        preprocessing=preprocessing | {"input_size": SIDE},
    )
    file = tmp_path_factory.mktemp("weights") / "network.safetensors"
    save_weights(file, network.state_dict(), card)
    return file


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder of three images, one with a name like a pattern, and one broken image."""
    monkeypatch.chdir(tmp_path)
    for name in ("b.png", "a.png", "deep/c[1].png"):
        Path(name).parent.mkdir(exist_ok=True)
        Image.new("RGB", (SIDE, SIDE), (200, 30, 30)).save(name)
    Path("broken.png").write_bytes(b"no image")
    return tmp_path


def typed(monkeypatch: pytest.MonkeyPatch, content: bytes) -> None:
    """Replace standard input by `content`."""
    stream = SimpleNamespace(buffer=io.BytesIO(content), isatty=lambda: False)
    monkeypatch.setattr(sys, "stdin", stream)


def test_files_folders_and_patterns(photos: Path) -> None:
    found = named_images(["b.png", "deep", "[ab].png", "deep/c[1].png", "**/*c*.png"]).found
    assert found == ["b.png", "deep", "a.png", "b.png", "deep/c[1].png", "deep/c[1].png"]


@pytest.mark.parametrize(
    "words, message",
    [
        (["*.jpg"], "no file matches '*.jpg'. Give image files, folders or patterns such as '*.jpg'"),
        (
            ["https://a.b/c.jpg"],
            "'https://a.b/c.jpg' is a URL, expected image files. Download the image first",
        ),
        (["x.png", "y.png"], "file not found: 'x.png'. Give image files or folders that exist (and 1 more)"),
    ],
)
def test_what_names_nothing(words: list[str], message: str, photos: Path) -> None:
    with pytest.raises(InputError) as error:
        named_images(words).check_any()
    assert message in str(error.value)


def test_others_are_classified_beside_bad_ones(weights: Path, photos: Path, igcv_command: Igcv) -> None:
    words = ["a.png", "missing.png", "broken.png", "b.png"]
    ended = igcv_command("predict", weights, *words, "--top", 1, "--device", "cpu")
    assert ended.status == 2
    missing, broken, last = ended.err.splitlines()
    assert missing == "file not found: 'missing.png'. Give image files or folders that exist"
    assert broken.startswith("broken.png: not a readable image")
    assert last == "igcv: 2 of 4 images cannot be read"
    assert [line for line in ended.out.splitlines() if line.endswith(".png")] == ["a.png", "b.png"]
    igcv_command("predict", weights, *words, "--out", "p.csv", "--device", "cpu")
    assert [line.split(",")[0] for line in Path("p.csv").read_text().splitlines()] == [
        "file",
        "missing.png",
        "a.png",
        "broken.png",
        "b.png",
    ]


def test_an_image_on_standard_input(
    weights: Path, photos: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed(monkeypatch, Path("a.png").read_bytes())
    said = json.loads(igcv_command("predict", weights, "-", "--json", "--device", "cpu").out)
    (named,) = igcv.predict(weights, "a.png", device="cpu")
    assert (said["image"], said["predictions"][0]["class"]) == ("-", named.name)
    assert said["predictions"][0]["probability"] == pytest.approx(named.probability, abs=1e-5)
    typed(monkeypatch, b"a.png\nb.png\n")
    ended = igcv_command("predict", weights, "-", "--device", "cpu")
    assert (ended.status, ended.out) == (2, "")
    assert (
        "standard input: not a readable image" in ended.err and "Pass a list of names with xargs" in ended.err
    )


def test_answers_come_batch_by_batch(weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[object] = []
    read = predictions.open_image
    monkeypatch.setattr(predictions, "open_image", lambda *given: opened.append(given) or read(*given))
    answers = predict_in_batches(weights, ["a.png"] * 9, device="cpu", batch_size=2)
    assert [entry.file for entry in next(answers)] == ["a.png"] * 2
    assert len(opened) <= 4  # the next batch is decoded in the background
    assert sum(map(len, answers)) == 7


def test_answers_are_printed_before_what_fails_later(
    weights: Path, photos: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from igcv.commands.use import predict

    classify, calls = predictions._classify, iter(range(9))

    def failing(*given: object) -> object:
        if next(calls) == 1:
            raise torch.OutOfMemoryError("no memory left")
        return classify(*given)

    monkeypatch.setattr(predictions, "_classify", failing)
    with pytest.raises(torch.OutOfMemoryError):
        predict(str(weights), ["a.png"] * 40, device="cpu", as_json=True)
    assert len(capsys.readouterr().out.splitlines()) == 32
