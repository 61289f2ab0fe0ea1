"""The web page of `igcv web`, in a real browser."""

import io
import shutil
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from PIL import Image
from sklearn.datasets import load_sample_images

import igcv
from igcv.classifier import load
from igcv.data.sources.open import open_source
from igcv.web import engine as onnx_web
from igcv.web.server import make_server
from igcv.web.writer import write_page
from igcv.weights import load_weights, save_weights
from tests.browser import engine, exact_pixels, served, stand_in_engine
from tests.conftest import Igcv

SECONDS = 30
ROUNDED = 0.06  # percentage points; the page shows one digit


class Visit(NamedTuple):
    """A page in the browser, with its requests and its errors."""

    tab: Any
    fetched: list[str]
    complaints: list[str]


@pytest.fixture(scope="module")
def folder(chromium: Any, digits_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a page of a small network, in float32 and int8, with the engine from the user's cache."""
    out = tmp_path_factory.mktemp("web") / "page"
    with engine():
        page = write_page(igcv.load(digits_run), out)
    assert [network["name"] for network in page.networks] == ["float32", "int8"]
    return out


@pytest.fixture(scope="module")
def address(folder: Path) -> Iterator[str]:
    with served(folder) as address:
        yield address


@pytest.fixture
def visit(chromium: Any, address: str, request: pytest.FixtureRequest) -> Iterator[Visit]:
    """Yield the loaded page, in a window with the options of the test."""
    tab = chromium.new_page(**getattr(request, "param", {}))
    visit = Visit(tab, [], [])
    tab.on("request", lambda asked: visit.fetched.append(asked.url))
    tab.on("pageerror", lambda error: visit.complaints.append(str(error)))
    tab.on("console", lambda said: said.type == "error" and visit.complaints.append(said.text))
    tab.set_default_timeout(1000 * SECONDS)
    tab.goto(address)
    tab.get_by_text("Ready. Choose a picture.").wait_for()
    yield visit
    tab.close()


def give(visit: Visit, file: Path) -> list[tuple[str, float]]:
    """Choose a file, and return the five classes with their percentages."""
    tab = visit.tab
    tab.evaluate("document.getElementById('bars').replaceChildren()")
    tab.set_input_files("#file", file)
    tab.locator("#bars li").first.wait_for()
    return answer(tab)


def answer(tab: Any) -> list[tuple[str, float]]:
    names, percents = (tab.locator(f"#bars .{part}").all_inner_texts() for part in ("name", "percent"))
    return [(name, float(text.removesuffix(" %"))) for name, text in zip(names, percents, strict=True)]


def pictures(folder: Path) -> dict[str, Path]:
    """Write a small image, a photograph, a tall image and a gray image."""
    val = open_source("digits", 0).val
    assert val is not None
    photo = Image.fromarray(load_sample_images().images[0])
    made = {
        "digit.png": val[5][0],
        "photo.png": photo,
        "high.png": photo.crop((0, 0, 120, 400)),
        "gray.png": photo.convert("L"),
    }
    for name, picture in made.items():
        picture.save(folder / name)
    return {name: folder / name for name in made}


@exact_pixels
def test_the_same_answers_as_predict(visit: Visit, address: str, digits_run: Path, tmp_path: Path) -> None:
    classifier = igcv.load(digits_run)
    for name, file in pictures(tmp_path).items():
        expected = classifier.predict([file])[0]
        found = give(visit, file)
        assert [label for label, _ in found] == [guess.name for guess in expected], name
        for (_, percent), guess in zip(found, expected, strict=True):
            assert percent == pytest.approx(100 * guess.probability, abs=ROUNDED), name
        assert visit.tab.inner_text("#answer") == expected[0].name
    assert visit.tab.inner_text("#time").endswith(" ms")
    assert all(url.startswith((address, "blob:")) for url in visit.fetched)
    assert not visit.complaints


def test_a_jpeg(visit: Visit, digits_run: Path, tmp_path: Path) -> None:
    """JPEG decoders may differ by one level."""
    Image.fromarray(load_sample_images().images[1]).save(tmp_path / "photo.jpg", quality=90)
    expected = igcv.load(digits_run).predict([tmp_path / "photo.jpg"])[0]
    found = give(visit, tmp_path / "photo.jpg")
    assert found[0] == (expected[0].name, pytest.approx(100 * expected[0].probability, abs=2))


def test_int8(visit: Visit, folder: Path, tmp_path: Path) -> None:
    """The int8 network has the predictions of ONNX Runtime on this machine."""
    file = pictures(tmp_path)["digit.png"]
    give(visit, file)
    visit.tab.get_by_role("radio", name="int8").check()
    visit.tab.get_by_text("Activations in 8 bits, weights in 7 bits.").wait_for()
    expected = load(folder / "int8.onnx").predict([file])[0]
    found = give(visit, file)
    assert found[0] == (expected[0].name, pytest.approx(100 * expected[0].probability, abs=1))
    megabytes = (folder / "int8.onnx").stat().st_size / 1e6
    assert float(visit.tab.inner_text("#size").removesuffix(" MB")) == pytest.approx(megabytes, rel=0.01)
    assert not visit.complaints


@pytest.mark.parametrize(
    "content, message",
    [
        (b"no picture", "The browser cannot read this file as a picture. Try a JPEG, PNG or WebP file."),
        (b"", "The browser cannot read this file as a picture"),
    ],
)
def test_unreadable_files(content: bytes, message: str, visit: Visit, tmp_path: Path) -> None:
    (tmp_path / "broken.jpg").write_bytes(content)
    visit.tab.set_input_files("#file", tmp_path / "broken.jpg")
    visit.tab.get_by_role("alert").get_by_text(message).wait_for()
    give(visit, pictures(tmp_path)["digit.png"])  # the page still works
    assert not visit.tab.get_by_role("alert").is_visible()


def test_examples_and_keyboard(visit: Visit) -> None:
    """The keyboard reaches and starts the first example."""
    visit.tab.locator("#thumbnails button").first.focus()
    visit.tab.keyboard.press("Enter")
    visit.tab.locator("#bars li").first.wait_for()
    assert visit.tab.locator("#thumbnails img").first.get_attribute("title") in map(str, range(10))
    assert len(answer(visit.tab)) == 5
    visit.tab.locator("#file").focus()
    assert visit.tab.evaluate("document.activeElement.id") == "file"


def test_drawing(visit: Visit) -> None:
    """A stroke from top to bottom is classified during drawing."""
    visit.tab.locator("#pad").scroll_into_view_if_needed()
    box = visit.tab.locator("#pad").bounding_box()
    visit.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + 20)
    visit.tab.mouse.down()
    visit.tab.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] - 20, steps=8)
    visit.tab.mouse.up()
    visit.tab.locator("#bars li").first.wait_for()
    assert len(answer(visit.tab)) == 5
    assert not visit.complaints


def test_camera(visit: Visit) -> None:
    button = visit.tab.locator("#camera")
    button.click()
    visit.tab.get_by_text("Stop the camera").wait_for()
    visit.tab.locator("#bars li").first.wait_for()
    assert visit.tab.locator("#video").is_visible()
    button.click()
    visit.tab.get_by_text("Use the camera").wait_for()
    assert visit.tab.evaluate("document.getElementById('video').srcObject") is None


@pytest.mark.parametrize(
    "visit, dark",
    [
        ({"viewport": {"width": 360, "height": 740}, "color_scheme": "light"}, False),
        ({"viewport": {"width": 360, "height": 740}, "color_scheme": "dark"}, True),
        ({"viewport": {"width": 1200, "height": 800}, "color_scheme": "dark"}, True),
    ],
    indirect=["visit"],
)
def test_every_screen(visit: Visit, dark: bool, tmp_path: Path) -> None:
    give(visit, pictures(tmp_path)["photo.png"])
    tab = visit.tab
    assert tab.evaluate("document.documentElement.scrollWidth <= innerWidth")
    ground = tab.evaluate("getComputedStyle(document.documentElement).backgroundColor")
    red, green, blue = (int(part) for part in ground.removeprefix("rgb(").removesuffix(")").split(","))
    assert (max(red, green, blue) < 64) == dark


def test_opened_as_a_file(chromium: Any, folder: Path) -> None:
    tab = chromium.new_page()
    tab.goto((folder / "index.html").as_uri())
    tab.get_by_role("alert").get_by_text("This page cannot load its network from a file.").wait_for()
    tab.close()


def test_one_thread_on_any_server(chromium: Any, folder: Path, address: str) -> None:
    """Without cross-origin isolation there is no shared memory, and the page works with one thread."""
    tab = chromium.new_page()
    isolating = {"cross-origin-opener-policy", "cross-origin-embedder-policy"}

    def plain(route: Any) -> None:
        response = route.fetch()
        kept = {name: value for name, value in response.headers.items() if name not in isolating}
        route.fulfill(response=response, headers=kept)

    tab.route("**/*", plain)
    tab.goto(address)
    tab.get_by_text("Ready. Choose a picture.").wait_for()
    assert "1 thread." in tab.inner_text("#made")
    tab.close()


def test_the_folder_tells_nothing_of_this_machine(folder: Path, digits_run: Path) -> None:
    assert str(digits_run.parent) not in (folder / "page.json").read_text()
    assert len(list((folder / "examples").iterdir())) == 8


@pytest.fixture
def without_engine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path / "cache"))
    stand_in_engine()


@pytest.mark.usefixtures("without_engine")
def test_without_images(digits_run: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    """Weights without training data in their card: only float32, and the reason."""
    tensors, card = load_weights(digits_run / "best.safetensors")
    bare = card.__class__(**{**vars(card), "recipe": {}, "results": {}})
    save_weights(tmp_path / "bare.safetensors", tensors, bare)
    outcome = igcv_command("web", tmp_path / "bare.safetensors", "--out", tmp_path / "page")
    assert outcome.status == 0
    assert "no int8: the network's card names no training data" in outcome.out
    names = {path.name for path in (tmp_path / "page").iterdir()}
    assert "float32.onnx" in names and not {"int8.onnx", "examples"} & names


@pytest.mark.usefixtures("without_engine")
def test_wrong_input(digits_run: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "page").mkdir()
    (tmp_path / "page" / "page.json").write_text("{}")
    for words, message in (
        ([digits_run], "--out is missing, expected a folder for the page. Add --out DIR"),
        (
            [digits_run, "--out", tmp_path / "full"],
            "contains other files than a page. Choose another folder",
        ),
        ([digits_run, "--out", tmp_path / "full" / "file"], "is a file, expected a folder. Give a folder"),
        (
            [digits_run, "--out", tmp_path / "no" / "page"],
            f"folder not found: '{tmp_path / 'no'}'. Create it first",
        ),
        ([digits_run, "--out", tmp_path / "new", "--calibrate", "cifar100:none"], "cifar100"),
        ([tmp_path / "network.onnx", "--out", tmp_path / "new"], "is an exported file"),
        ([tmp_path / "page"], "is already a page, expected a run folder or weights"),
        ([tmp_path / "none", "--out", tmp_path / "new"], "file not found"),
    ):
        outcome = igcv_command("web", *words)
        assert outcome.status == 2, words
        assert message in outcome.err, outcome.err
        assert not (tmp_path / "new").exists()


def test_no_npm(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path))
    monkeypatch.setattr(shutil, "which", lambda name: None)
    with pytest.raises(igcv.InputError, match=r"npm not found, .* Install Node\.js"):
        onnx_web.engine_files()


def test_another_package(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A package with another checksum is not unpacked."""
    archive = io.BytesIO()
    with tarfile.open(fileobj=archive, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("package/dist/ort.wasm.min.mjs"))
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path))
    monkeypatch.setattr(onnx_web, "packed", archive.getvalue)
    with pytest.raises(igcv.InputError, match=r"checksum of onnxruntime-web .* from npm: got sha512-"):
        onnx_web.engine_files()
    assert not list(tmp_path.iterdir())


def test_port_in_use(folder: Path) -> None:
    with make_server(folder, 0) as server, pytest.raises(igcv.InputError, match="Give another port, or 0"):
        make_server(folder, server.server_port)
