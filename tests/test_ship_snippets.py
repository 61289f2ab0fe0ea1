"""The examples on the pages about deployment give the predictions of `igcv predict` on photographs."""

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_images

import igcv
from igcv.data.preprocessing import IMAGENET, eval_transform
from igcv.web.writer import write_page
from igcv.weights import save_weights
from igcv.weights.card import Card
from tests.browser import engine, exact_pixels, served
from tests.conftest import randomized
from tests.page_commands import ROOT
from tests.test_pages import blocks

PAGES = ROOT / "docs" / "deploy"
SHARED = Path(__file__).parents[2] / "shared" / "data" / "imagenet_photos"
# A page for the example, with an import map in place of the npm installation.
HTML = """<script type="importmap">{"imports": {"onnxruntime-web": "./ort/ort.wasm.min.mjs"}}</script>
<script type="module">
import { classify } from "./example.mjs";
window.classify = async (name) => classify(await (await fetch(name)).blob());
</script>"""


FILES = {"onnx": "photos.onnx", "litert": "photos.tflite", "ncnn": "photos.param"}  # by page


def example(page: str, language: str) -> str:
    """Return the first block of a language on a page about deployment."""
    return next(block.text for block in blocks(PAGES / f"{page}.md") if block.language == language)


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Return photographs of many kinds: EXIF orientation, transparent, gray, CMYK, tall, wide and small."""
    folder = tmp_path_factory.mktemp("photos")
    china, flower = map(Image.fromarray, load_sample_images().images)
    turned = Image.Exif()
    turned[0x112] = 6
    veiled = flower.copy()
    veiled.putalpha(Image.radial_gradient("L").resize(flower.size).point(lambda v: max(255 - 2 * v, 0)))
    china.save(folder / "plain.png")
    flower.save(folder / "turned.jpg", exif=turned, quality=95)
    china.save(folder / "turned.png", exif=turned)
    veiled.save(folder / "transparent.png")
    veiled.convert("LA").save(folder / "gray_transparent.png")
    flower.quantize(64).save(folder / "palette.png", transparency=bytes([0, 0, 90]))
    flower.convert("L").save(folder / "gray.jpg", quality=95)
    china.convert("CMYK").save(folder / "cmyk.jpg", quality=95)
    china.crop((0, 0, 90, 420)).save(folder / "high.png")
    china.crop((0, 100, 600, 163)).save(folder / "wide.png")
    flower.resize((20, 17)).save(folder / "small.png")
    for file in sorted(SHARED.rglob("*.JPEG")):
        shutil.copy(file, folder / file.name)
    return {file.name: file for file in sorted(folder.iterdir())}


@pytest.fixture(scope="module")
def network(photos: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with weights and the exported network of the page, with many classes of equal mean logits.

    Predictions then depend on details of the pixels: different photographs get different predictions.
    """
    folder = tmp_path_factory.mktemp("network")
    network = randomized("igcv3_w_025", 200, 32)
    pre = replace(IMAGENET, input_size=32)
    seen = torch.stack([eval_transform(pre)(Image.open(file)) for file in photos.values()])
    with torch.no_grad():
        network.classifier.bias -= network(seen).mean(0)
    card = Card(
        model="igcv3_w_025",
        num_classes=200,
        input_size=32,
        strides=network.strides,
        class_names=tuple(f"class {i}" for i in range(200)),
        preprocessing=pre.to_dict(),
    )
    save_weights(folder / "w.safetensors", network.state_dict(), card)
    for file in FILES.values():
        inside = not file.endswith(".param")  # ncnn takes normalized images
        igcv.export(folder / "w.safetensors", folder / file, form="dense", with_preprocessing=inside)
    return folder


@pytest.mark.parametrize("page", FILES)
def test_the_python_examples(
    page: str,
    photos: dict[str, Path],
    network: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(shutil.copytree(network, tmp_path / "place"))
    monkeypatch.syspath_prepend(ROOT / "examples")
    code = compile(example(page, "python"), "example", "exec")
    classifier = igcv.load(network / FILES[page])
    for name, file in photos.items():
        shutil.copy(file, "photo.jpg")  # in any format
        variables: dict[str, Any] = {}
        exec(code, variables)
        expected = classifier.predict(file, top=200)[0]
        assert capsys.readouterr().out.strip() == expected[0].name, name
        logits = np.array(variables["logits"])
        shares = np.exp(logits - logits.max())
        shares /= shares.sum()
        for guess in expected:
            assert shares[guess.label] == pytest.approx(guess.probability, abs=1e-5), name


@exact_pixels
def test_the_javascript_example(
    chromium: Any, photos: dict[str, Path], network: Path, tmp_path: Path
) -> None:
    """In a browser. JPEG decoders differ by one level, so equally probable classes may swap places."""
    with engine():
        folder = write_page(igcv.load(network / "w.safetensors"), tmp_path / "page").folder
    shutil.copy(network / "photos.onnx", folder)
    (folder / "own.html").write_text(HTML)
    (folder / "example.mjs").write_text(example("browser", "js"))
    for file in photos.values():
        shutil.copy(file, folder)
    classifier = igcv.load(network / "photos.onnx")
    with served(folder) as address:
        tab = chromium.new_page()
        tab.goto(f"{address}own.html")
        tab.wait_for_function("() => Boolean(window.classify)")
        answers = tab.evaluate(
            "async (names) => { const all = []; for (const n of names) all.push(await classify(n)); return all; }",
            list(photos),
        )
        tab.close()
    for (name, file), answer in zip(photos.items(), answers, strict=True):
        guesses = classifier.predict(file, top=3)[0]
        least = guesses[0].probability * (0.97 if name.lower().endswith(("jpg", "jpeg")) else 1)
        assert answer in [guess.name for guess in guesses if guess.probability >= least], name
    assert len(set(answers)) > 5  # the photographs get different predictions
