"""README.md, CONTRIBUTING.md and docs/: all commands, Python examples and links work, and the site builds."""

import doctest
import os
import re
import shutil
import subprocess
import sys
import textwrap
import tomllib
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import fields
from importlib.util import find_spec
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import pytest
import timm
import torch
from PIL import Image

import igcv
from igcv.conversion import to_mxnet
from igcv.data import write_records
from igcv.deploy.samples import sample_pixels
from igcv.deploy.write import write_compared
from igcv.deploy.writers.settings import ExportSettings
from igcv.machine.processes import Process
from igcv.training import Recipe, find_recipe, load_recipe
from igcv.training.phases import train_in
from igcv.weights.known import KNOWN
from tests.browser import stand_in_engine
from tests.conftest import Igcv
from tests.page_commands import COMMANDS, NETWORK, ROOT, SMALL, lines, make_room, run_shell
from tests.weights_server import known_weights

PAGES = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FIRST_PAGES = [
    ROOT / "README.md",
    *(ROOT / "docs" / f"{name}.md" for name in ("start", "train", "fine_tune")),
]
BLOCK = re.compile(r"^( *)```(\w*)(?: title=\"(\S+)\")?\n(.*?)^\1```$", re.MULTILINE | re.DOTALL)
NEEDED = {  # packages that may be missing, by page
    "executorch.md": "executorch",
    "coreml.md": "coremltools",
    "backbones.md": "segmentation_models_pytorch",
}
RUNS = ("photos", "digits", "imagenet", "c10")  # run folders used by commands on the pages
FOREIGN = re.compile(
    r"<(?:script|link|img|iframe)\b[^>]*(?:src|href)=\"?(?:https?:)?//[^>]*>|url\(\"?(?:https?:)?//"
)


class Block(NamedTuple):
    """A fenced block of a page; the title is a file name."""

    language: str
    title: str
    text: str


def blocks(page: Path) -> list[Block]:
    found = BLOCK.findall(page.read_text())
    return [Block(language, title, textwrap.dedent(text)) for _, language, title, text in found]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Provide random weights under all weights names on the pages."""
    text = "".join(block.text for page in PAGES for block in blocks(page))
    with known_weights(
        [name for name in KNOWN if re.search(rf"{re.escape(name)}\b", text)], tmp_path_factory.mktemp("web")
    ):
        yield


@pytest.fixture(scope="module")
def everything(weights: None, digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with all files that the commands on the pages use."""
    root = tmp_path_factory.mktemp("pages")
    shutil.copytree(digit_folder / "val" / "zero", root / "imagenet" / "val" / "n01440764")
    shutil.copytree(digit_folder / "val" / "one", root / "imagenet" / "val" / "n15075141")
    state = timm.create_model("mobilenetv2_035", num_classes=2).state_dict()
    torch.save(state, root / "model.pth")
    torch.save({"state_dict": state}, root / "checkpoint.pth.tar")
    for name in ("photos", "other_photos"):
        shutil.copytree(digit_folder / "train", root / name)
    for name in ("photo.jpg", "digit.png"):
        with Image.open(digit_folder / "val" / "one" / "12.png") as picture:
            picture.save(root / name)
    encoded = BytesIO()
    Image.new("RGB", (32, 32), (90, 20, 150)).save(encoded, "JPEG")
    (root / "DIR").mkdir()
    for name in ("train.rec", "val.rec", "DIR/train.rec", "DIR/val.rec"):
        write_records(root / name, [(label, encoded.getvalue()) for label in (0, 1) * 8])
    stand_in_engine()
    with chdir(root):
        make_networks()
    return root


def make_networks() -> None:
    """Write run folders, an MXNet checkpoint, converted weights and an exported file of one small network."""
    first, *others = (Path("runs") / name for name in RUNS)
    recipe = load_recipe(find_recipe("cifar_fast.toml"), [*SMALL, NETWORK, "data=folder:photos"])
    train_in(Process(torch.device("cpu")), recipe, first, quiet=True)
    for folder in others:
        shutil.copytree(first, folder)
    to_mxnet(first, "igcv3-0000.params")
    shutil.copy(first / "best.safetensors", "igcv3.safetensors")
    classifier = igcv.load(first)
    settings = ExportSettings(format="onnx", form="dense", with_preprocessing=True)
    write_compared(
        classifier, Path("photos.onnx"), settings, sample_pixels(None, classifier.preprocessing, 2)
    )


@pytest.mark.filterwarnings("ignore:This API is experimental")  # of executorch
@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_blocks(
    page: Path, everything: Path, igcv_command: Igcv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The blocks of a page run from top to bottom, in a separate folder per page."""
    if (package := NEEDED.get(page.name)) and find_spec(package) is None:
        pytest.skip(f"{package} is not installed")
    monkeypatch.syspath_prepend(ROOT / "examples")  # pixels.py
    monkeypatch.chdir(shutil.copytree(everything, tmp_path / "place"))
    try_page(page, igcv_command)


@pytest.mark.parametrize("page", FIRST_PAGES, ids=lambda page: page.name)
def test_first_pages_twice(
    page: Path, everything: Path, igcv_command: Igcv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of a page also work a second time, with the files of the first time present."""
    monkeypatch.chdir(shutil.copytree(everything, tmp_path / "place"))
    for block in blocks(page):
        for words in lines(block.text) if block.language == "bash" else ():
            if words[0] == "igcv":
                make_room(words[1:])
    monkeypatch.setattr("tests.page_commands.make_room", lambda words: None)
    monkeypatch.setattr("tests.page_commands.LONGER", [])
    for _ in range(2):
        try_page(page, igcv_command)


def try_page(page: Path, igcv_command: Igcv) -> None:
    """Run all blocks of a page in the current folder."""
    names: dict[str, object] = {}
    languages: dict[str, Callable[[str], object]] = {
        "bash": lambda text: run_shell(text, igcv_command),
        "python": lambda text: exec(text, names),
        "pycon": lambda text: run_examples(text, names),
        "toml": tomllib.loads,
        "js": lambda text: None,  # see test_javascript
        "text": lambda text: None,
        # igcv's tests have no compilers for these; their pages say which were compiled
        "cpp": lambda text: None,
        "kotlin": lambda text: None,
        "swift": lambda text: None,
    }
    for block in blocks(page):
        assert block.language in languages, f"no runner for '{block.language}' blocks: add one to `languages`"
        if block.title:
            Path(block.title).write_text(block.text)
        languages[block.language](block.text)


def run_examples(text: str, names: dict[str, object]) -> None:
    """Check the printed results of Python examples."""
    example = doctest.DocTestParser().get_doctest(text, names, "example", None, None)
    said: list[str] = []
    failed = doctest.DocTestRunner(verbose=False).run(example, out=said.append, clear_globs=False).failed
    assert not failed, "".join(said)


@pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
def test_javascript(tmp_path: Path) -> None:
    scripts = [block.text for page in PAGES for block in blocks(page) if block.language == "js"]
    assert scripts
    for number, script in enumerate(scripts):
        file = tmp_path / f"{number}.mjs"
        file.write_text(script)
        subprocess.run(["node", "--check", file], check=True)


@pytest.mark.parametrize("page", [*PAGES, ROOT / "SECURITY.md"], ids=lambda page: str(page.relative_to(ROOT)))
def test_links(page: Path) -> None:
    """Links within the repository exist; the build of the site checks the site's links."""
    text = BLOCK.sub("", page.read_text())
    for target in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", text) + re.findall(r'src="([^":]+)"', text):
        assert (page.parent / target).exists(), f"{page.name} links to {target}, which does not exist"


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the site like `make docs`, with warnings as errors."""
    if find_spec("mkdocs") is None:
        pytest.skip("mkdocs is not installed; pip install 'igcv[docs]'")
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "NO_MKDOCS_2_WARNING": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return folder


def test_the_site_asks_nothing_of_other_hosts(site: Path) -> None:
    files = [path for path in site.rglob("*") if path.suffix in (".html", ".css")]
    assert len(files) > len(PAGES) - 2
    for file in files:
        assert not FOREIGN.findall(file.read_text()), file


def test_the_site_has_every_command_and_setting(site: Path) -> None:
    commands, settings = (
        (site / "reference" / f"{name}.html").read_text() for name in ("commands", "settings")
    )
    for name in COMMANDS.keys() - {"bench"} | {"bench data", "bench latency"}:
        assert f">igcv {name}<" in commands
    for field in fields(Recipe):
        assert f"<code>{field.name}</code>" in settings
