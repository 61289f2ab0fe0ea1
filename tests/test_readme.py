"""Every command and every line of Python in the README runs, on tiny data."""

import re
import shlex
import shutil
from io import BytesIO
from pathlib import Path

import pytest
from PIL import Image

import igcv
from igcv.classifier import Classifier
from igcv.data import MXNET, write_records
from igcv.deploy import FoldedNetwork
from igcv.deploy.compare import sample_pixels
from igcv.deploy.export import Settings, export
from igcv.mxnet import to_mxnet
from igcv.weights import Card, save_weights
from tests.conftest import Igcv

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]
README = PAGES[0].read_text()
COMMANDS = re.findall(r"^igcv .+$", README, re.MULTILINE)
SMALL = ["model=igcv3_w_025", "input_size=16", "epochs=1", "batch_size=8", "ema_decay=0.5"]


@pytest.fixture(scope="module")
def place(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with everything that the README's commands name."""
    root = tmp_path_factory.mktemp("readme")
    for name in ("photos", "other_photos"):
        shutil.copytree(digit_folder / "train", root / name)
    image = next((digit_folder / "val" / "one").iterdir())
    for name in ("photo.jpg", "digit.png"):
        with Image.open(image) as picture:
            picture.save(root / name)
    encoded = BytesIO()
    Image.new("RGB", (32, 32), (90, 20, 150)).save(encoded, "JPEG")
    for name in ("train.rec", "val.rec"):
        write_records(root / name, [(label, encoded.getvalue()) for label in (0, 1, 0, 1)])
    checkpoint(root)
    return root


def checkpoint(root: Path) -> None:
    """An MXNet checkpoint of an untrained network with two classes."""
    model = igcv.create_model("igcv3_d_025", 2)
    card = Card(model="igcv3_d_025", num_classes=2, input_size=224, preprocessing=MXNET.to_dict())
    save_weights(root / "fresh.safetensors", model.state_dict(), card)
    to_mxnet(root / "fresh.safetensors", root / "igcv3-0000.params")


def tiny(command: str) -> list[str]:
    """The command on tiny data: short training, and no graph file to check against."""
    arguments = shlex.split(command)[1:]
    if "--symbol" in arguments:
        at = arguments.index("--symbol")
        del arguments[at : at + 2]
    if arguments[0] == "train":
        kept = [a for a in arguments if not a.startswith("input_size=")]
        arguments = [*kept, *SMALL] if "--resume" not in kept else [*kept, "epochs=2"]
        if "--model" in arguments:
            arguments[arguments.index("--model") + 1] = "igcv3_w_025"
    return arguments


def test_commands(place: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    (place / "photos.onnx").unlink(missing_ok=True)  # left by the other test, if that came first
    assert len(COMMANDS) >= 7
    for command in COMMANDS:
        outcome = igcv_command(*tiny(command))
        assert outcome.status == 0, f"{command}\n{outcome.err}"


def test_python(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.chdir(place)
    model = igcv.create_model("igcv3_w_025", 2, input_size=16)
    preprocessing = MXNET.to_dict() | {"input_size": 16}
    card = Card(
        model="igcv3_w_025",
        num_classes=2,
        class_names=("cat", "dog"),
        input_size=16,
        preprocessing=preprocessing,
    )
    (place / "runs" / "digits").mkdir(parents=True, exist_ok=True)
    save_weights(place / "runs" / "digits" / "best.safetensors", model.state_dict(), card)
    ship(place)
    names: dict[str, object] = {}
    for page in PAGES:
        for block in python_blocks(page):
            exec(block, names)
    assert isinstance(names["classifier"], Classifier)
    assert isinstance(names["folded"], FoldedNetwork)
    printed = capsys.readouterr().out
    assert printed.startswith("Prediction(label=")
    assert "[0.0, 3.0, 1.0, 4.0, 2.0, 5.0]" in printed
    assert {"cat", "dog"} & set(printed.splitlines())


def ship(place: Path) -> None:
    """photos.onnx, as the page on shipping has it."""
    classifier = igcv.load(place / "runs" / "digits")
    settings = Settings(format="onnx", form="dense", with_preprocessing=True)
    (place / "photos.onnx").unlink(missing_ok=True)
    export(classifier, place / "photos.onnx", settings, sample_pixels(None, classifier.preprocessing, 2))


def python_blocks(page: Path) -> list[str]:
    return re.findall(r"```python\n(.*?)```", page.read_text(), re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"
