"""The files of the package, its version, and the files that git ignores."""

import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

import igcv

ROOT = Path(__file__).parents[1]
pytestmark = pytest.mark.skipif(not (ROOT / ".git").exists(), reason="asks git: run the tests in a clone")
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]


def ignored(*paths: str) -> set[str]:
    """Return the paths that git ignores."""
    command = ["git", "check-ignore", "--no-index", *paths]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split())


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> tuple[set[str], set[str]]:
    """Return the files in the wheel and in the source distribution."""
    out = tmp_path_factory.mktemp("dist")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-d", out], cwd=ROOT, check=True, capture_output=True
    )
    [wheel], [sdist] = out.glob("*.whl"), out.glob("*.tar.gz")
    with zipfile.ZipFile(wheel) as archive, tarfile.open(sdist) as tar:
        return set(archive.namelist()), {name.partition("/")[2] for name in tar.getnames()}


def tracked(*folders: str) -> set[str]:
    """Return the files of folders that git tracks."""
    command = ["git", "ls-files", "--", *folders]
    return set(
        subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    ) - {""}


def test_the_wheel_has_the_package_the_recipes_and_the_weights(built: tuple[set[str], set[str]]) -> None:
    wheel, _ = built
    about = f"igcv-{igcv.__version__}.dist-info/"
    expected = tracked("igcv") | {f"igcv/{name}" for name in tracked("recipes", "released")}
    assert {name for name in wheel if not name.startswith(about)} == expected
    assert f"{about}licenses/LICENSE" in wheel
    assert {"igcv/py.typed", "igcv/web/page/index.html", "igcv/report/page.html"} <= wheel


def test_the_source_distribution_has_everything_but_the_corpus(built: tuple[set[str], set[str]]) -> None:
    _, sdist = built
    corpus = tracked("studies/soak/corpus")
    assert len(corpus) > 300 and not corpus & sdist
    assert tracked("docs", "examples", "igcv", "recipes", "released", "studies", "tests") - corpus <= sdist
    assert {"README.md", "CHANGELOG.md", "CITATION.cff", "LICENSE", "Makefile", "SECURITY.md"} <= sdist


def test_one_version_everywhere() -> None:
    """A released version has a date in the changelog."""
    version = igcv.__version__
    [newest] = re.findall(r"^## (.+)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)[:1]
    date = "unreleased" if ".dev" in version else r"\d{4}-\d\d-\d\d"
    assert re.fullmatch(rf"{re.escape(version)} \({date}\)", newest)
    assert f"\nversion: {version}\n" in (ROOT / "CITATION.cff").read_text()


def test_the_oldest_constraints_are_the_lower_bounds() -> None:
    """`make constraints` writes the file."""
    lines = (ROOT / "constraints-oldest.txt").read_text().split()
    pins = {line.partition("==")[0]: line.partition("==")[2] for line in lines}
    extras = PROJECT["optional-dependencies"]
    needed = ("report", "demo", "deploy", "litert", "ncnn", "docs", "coreml", "dev")
    given = [*PROJECT["dependencies"], *(one for extra in needed for one in extras[extra])]
    bounds = dict(re.findall(r"^([\w-]+)(?:\[\w+\])?>=([\d.]+)", "\n".join(given), re.MULTILINE))
    assert len(bounds) > 30 and {"torch", "torchvision", "timm", "onnx", "pytest"} <= bounds.keys()
    for name, bound in bounds.items():
        pinned = tuple(map(int, pins[name.lower()].split(".")))
        lowest = tuple(map(int, bound.split(".")))
        assert pinned[: len(lowest)] == lowest, name


def test_every_library_has_a_lower_bound() -> None:
    given = [
        *PROJECT["dependencies"],
        *(one for extra in PROJECT["optional-dependencies"].values() for one in extra),
    ]
    assert not [one for one in given if ">=" not in one and not one.startswith("igcv[")]


def test_the_wheel_is_typed() -> None:
    assert (ROOT / "igcv" / "py.typed").read_bytes() == b""


def test_what_runs_leave_is_ignored_and_nothing_else() -> None:
    left = [
        "data/cifar-10-batches-py/x",
        "runs/digits/recipe.toml",
        "runs.html",
        "digits.onnx",
        "predictions.csv",
        ".venv-oldest/bin/python",
    ]
    kept = [
        "igcv/data/new.py",
        "tests/data/new.csv",
        "studies/runs/new.py",
        "docs/page/new.md",
        "released/a.safetensors",
    ]
    assert ignored(*left, *kept) == set(left)
