"""The web page with unusual pictures and inputs, and npm failures; the page has no training data."""

import shutil
from collections.abc import Iterator
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import igcv
from igcv.data import decode
from igcv.data.preprocessing import CIFAR, Preprocessing, plain_transform
from igcv.errors import InputError
from igcv.web import engine as onnx_web
from igcv.web import server as serve
from igcv.web.writer import write_page
from igcv.weights import load_weights, save_weights
from igcv.weights.card import Card
from tests.browser import engine, exact_pixels, served, stand_in_engine
from tests.conftest import Igcv, randomized

PRE = Preprocessing(32, CIFAR.mean, CIFAR.std, 0.875, "bicubic")
NAMES = ("apple", "bear & co", "cup", "dog", "elm", "<b>fox</b>", "a name that is longer than its line " * 4)
PHOTO = Image.fromarray(load_sample_images().images[0])
# Drops or pastes a file on the page.
GIVE = """([kind, bytes]) => {
    const transfer = new DataTransfer();
    transfer.items.add(new File([Uint8Array.from(bytes)], "a.png", { type: "image/png" }));
    const event = kind === "drop"
        ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
        : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true });
    document.body.dispatchEvent(event);
}"""
SEEN = """() => {
    const canvas = document.getElementById("seen");
    return Array.from(canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data);
}"""
REFUSE = (
    "() => { navigator.mediaDevices.getUserMedia = "
    "async () => { throw new DOMException('', 'NotAllowedError'); }; }"
)


def save_network(path: Path) -> Path:
    """Write a network with fixed random weights and a card without training data."""
    model = randomized("igcv3_w_025", len(NAMES), PRE.input_size)
    card = Card(
        model="igcv3_w_025",
        num_classes=len(NAMES),
        input_size=PRE.input_size,
        strides=model.strides,
        class_names=NAMES,
        preprocessing=PRE.to_dict(),
    )
    save_weights(path, model.state_dict(), card)
    return path


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("weights") / "w.safetensors")


@pytest.fixture(scope="module")
def folder(chromium: Any, weights: Path) -> Path:
    with engine():
        return write_page(igcv.load(weights), weights.parent / "page").folder


@pytest.fixture
def tab(chromium: Any, folder: Path) -> Iterator[Any]:
    """Yield the loaded page at the size of a phone."""
    with served(folder) as address:
        opened = chromium.new_page(viewport={"width": 360, "height": 740})
        complaints: list[str] = []
        opened.on("pageerror", lambda error: complaints.append(str(error)))
        opened.on("console", lambda said: said.type == "error" and complaints.append(said.text))
        opened.goto(address)
        opened.get_by_text("Ready. Choose a picture.").wait_for()
        yield opened
        opened.close()
        assert not complaints


def encoded(image: Image.Image, format: str = "PNG", **settings: Any) -> bytes:
    buffer = BytesIO()
    image.save(buffer, format, **settings)
    return buffer.getvalue()


def choose(tab: Any, content: bytes) -> None:
    tab.evaluate("document.getElementById('bars').replaceChildren()")
    tab.set_input_files("#file", {"name": "a", "mimeType": "image/png", "buffer": content})


def assert_answers(tab: Any, image: Image.Image, weights: Path, points: float = 0.06) -> None:
    """Assert that the page shows the percentages of `predict`, within `points` percentage points."""
    tab.locator("#bars li").first.wait_for()
    names, percents = (tab.locator(f"#bars .{part}").all_text_contents() for part in ("name", "percent"))
    found = {name: float(text.removesuffix(" %")) for name, text in zip(names, percents, strict=True)}
    expected = {guess.name: 100 * guess.probability for guess in igcv.load(weights).predict([image])[0]}
    assert found == pytest.approx(expected, abs=points)


@exact_pixels
def test_dropped_and_pasted(tab: Any, weights: Path) -> None:
    for kind, image in (("drop", PHOTO.resize((60, 40))), ("paste", PHOTO.resize((40, 90)))):
        tab.evaluate("document.getElementById('bars').replaceChildren()")
        tab.evaluate(GIVE, [kind, list(encoded(image))])
        assert_answers(tab, image, weights)
    assert (
        tab.evaluate("document.documentElement.scrollWidth") == 360
    )  # a long name does not stretch the page


def test_a_photograph_that_says_how_to_turn_it(tab: Any, weights: Path) -> None:
    """The page applies the EXIF orientation like `predict`; without it, the prediction differs."""
    turned = Image.Exif()
    turned[0x112] = 6
    for kind, points in (("PNG", 0.06), ("WEBP", 0.06), ("JPEG", 2)):  # JPEG decoders differ by one level
        content = encoded(PHOTO, kind, exif=turned, quality=95, lossless=True)
        choose(tab, content)
        assert_answers(tab, Image.open(BytesIO(content)), weights, points)
        with pytest.raises(AssertionError):
            assert_answers(tab, PHOTO, weights, points)


def test_transparency(tab: Any) -> None:
    """Transparent pixels are white, as in `predict`; their stored color is invisible."""
    half = PHOTO.copy()
    half.putalpha(Image.linear_gradient("L").resize(PHOTO.size))
    nothing = PHOTO.copy()
    nothing.putalpha(0)
    palette = PHOTO.quantize(16)
    for content in (
        *(encoded(image) for image in (half, nothing, half.convert("LA"))),
        encoded(palette, transparency=bytes([0, 100])),
        encoded(palette, "GIF", transparency=3),
    ):
        choose(tab, content)
        tab.locator("#bars li").first.wait_for()
        seen = np.array(tab.evaluate(SEEN), np.uint8).reshape(32, 32, 4)[..., :3]
        expected = plain_transform(PRE)(decode(content, "x")).permute(1, 2, 0).numpy()
        assert np.abs(seen.astype(int) - expected).max() <= 1


def test_too_many_pixels(tab: Any, weights: Path) -> None:
    choose(tab, encoded(Image.new("1", (9500, 9500))))
    tab.get_by_role("alert").get_by_text("pixels, the limit is 89 million pixels").wait_for()
    choose(tab, encoded(PHOTO))
    assert_answers(tab, PHOTO, weights)
    assert not tab.get_by_role("alert").is_visible()


def test_a_camera_that_is_refused(tab: Any) -> None:
    tab.evaluate(REFUSE)
    tab.locator("#camera").click()
    tab.get_by_role("alert").get_by_text("Camera access was denied").wait_for()
    assert tab.inner_text("#camera") == "Use the camera"


def test_what_is_not_there_is_said(tab: Any) -> None:
    assert "No int8 network" in tab.inner_text("#note")
    assert tab.locator("[value=int8]").is_disabled()
    assert "Accuracy: unknown" in tab.inner_text("#accuracy")
    assert not tab.locator("#examples").is_visible() and not tab.locator("#drawing").is_visible()


def test_keys_reach_every_control(tab: Any) -> None:
    reached = []
    for _ in range(3):
        tab.keyboard.press("Tab")
        reached.append(tab.evaluate("document.activeElement.id || document.activeElement.value"))
    assert reached == ["file", "camera", "float32"]


def test_a_network_that_is_not_there(chromium: Any, folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder, tmp_path / "page")
    (tmp_path / "page" / "float32.onnx").unlink()
    with served(tmp_path / "page") as address:
        tab = chromium.new_page()
        tab.goto(address)
        tab.get_by_role("alert").get_by_text("The network could not be loaded").wait_for()
        assert tab.locator("#file").is_disabled()
        tab.close()


def test_nothing_names_a_place_on_this_machine(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither the page nor the card in its network contains paths; the recipe and the source do."""
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path / "cache"))
    stand_in_engine()
    tensors, card = load_weights(weights)
    card = replace(
        card,
        recipe={"data": "folder:/home/somebody/photos", "init_from": "/home/somebody/start"},
        results={"top1": 90.0, "data": "folder:/home/somebody/photos"},
        source={"file": "/home/somebody/a.params"},
    )
    save_weights(tmp_path / "w.safetensors", tensors, card)
    page = write_page(igcv.load(tmp_path / "w.safetensors"), tmp_path / "page").folder
    for file in (path for path in page.rglob("*") if path.is_file()):
        assert b"somebody" not in file.read_bytes(), file
    assert '"data": "photos"' in (page / "page.json").read_text()


def test_the_server_isolates_the_page(tmp_path: Path) -> None:
    (tmp_path / "a.wasm").write_bytes(b"\0asm")
    with served(tmp_path) as address, urlopen(f"{address}a.wasm") as answer:
        assert answer.headers["Cross-Origin-Opener-Policy"] == "same-origin"
        assert answer.headers["Cross-Origin-Embedder-Policy"] == "require-corp"
        assert answer.headers["Content-Type"] == "application/wasm"


def test_written_once_and_served_twice(
    weights: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path / "cache"))
    stand_in_engine()
    served_at: list[tuple[Path, int]] = []
    monkeypatch.setattr(serve, "serve", lambda page, port, say: served_at.append((page, port)))
    out = tmp_path / "page"
    out.mkdir()  # an empty folder is allowed
    assert igcv_command("web", weights, "--out", out, "--serve", "0").status == 0
    assert igcv_command("web", out, "--serve", "8000").status == 0
    assert served_at == [(out, 0), (out, 8000)]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cache", "page"]


@pytest.mark.parametrize(
    "script, message",
    [
        ("echo 'npm error code E404' >&2; exit 1", r"npm could not download .* \(npm error code E404\)"),
        ("exit 0", r"npm could not download .* \(no file written\)"),
        ("exec sleep 9", r"npm did not download .* Check the internet connection"),
    ],
)
def test_npm_that_fails(script: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    npm = tmp_path / "npm"
    npm.write_text(f"#!/bin/sh\n{script}\n")
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=":")
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(onnx_web, "TIMEOUT_S", 1)
    said: list[str] = []
    with pytest.raises(InputError, match=message):
        onnx_web.engine_files(said.append)
    assert "downloading onnxruntime-web" in said[0] and not (tmp_path / "cache").exists()
