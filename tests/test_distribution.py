"""The files in dist/, installed in new environments. `make dist` builds them and runs these tests."""

import os
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from PIL import Image

import igcv

ROOT = Path(__file__).parents[1]
DIST = os.environ.get("IGCV_TEST_DIST")
pytestmark = pytest.mark.skipif(DIST is None, reason="installs the built files: make dist")


def run(*command: object, cwd: Path | None = None) -> str:
    """Run a command outside the checkout's environment and return its output."""
    kept = {name: value for name, value in os.environ.items() if name not in ("PYTHONPATH", "VIRTUAL_ENV")}
    done = subprocess.run(
        [*map(str, command)], cwd=cwd, env=kept, capture_output=True, text=True, stdin=subprocess.DEVNULL
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def files() -> tuple[Path, Path]:
    """Return the wheel and the source distribution."""
    folder = ROOT / str(DIST)
    [wheel], [sdist] = folder.glob("*.whl"), folder.glob("*.tar.gz")
    assert wheel.name == f"igcv-{igcv.__version__}-py3-none-any.whl"
    assert sdist.name == f"igcv-{igcv.__version__}.tar.gz"
    return wheel, sdist


@pytest.fixture(scope="module")
def environment(files: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the programs of a new environment with the wheel and without extras."""
    folder = tmp_path_factory.mktemp("environment")
    run(sys.executable, "-m", "venv", folder)
    run(folder / "bin/pip", "install", "-q", "-c", ROOT / "constraints.txt", files[0])
    return folder / "bin"


def test_a_tag_is_the_version() -> None:
    tags = run("git", "tag", "--points-at", "HEAD", cwd=ROOT).split()
    assert not tags or tags == [f"v{igcv.__version__}"]


def test_prediction_without_extras(environment: Path, tmp_path: Path) -> None:
    Image.new("RGB", (32, 32), "white").save(tmp_path / "image.png")
    assert run(environment / "igcv", "--version", cwd=tmp_path).startswith(f"igcv {igcv.__version__}\n")
    for name in ("igcv3_w_025.digits", "igcv3_d_p50.cifar10"):
        assert "%" in run(environment / "igcv", "predict", name, "image.png", cwd=tmp_path)
    assert "matplotlib" not in run(environment / "pip", "list").lower()


def test_the_demo_with_its_extras(environment: Path, files: tuple[Path, Path], tmp_path: Path) -> None:
    run(environment / "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{files[0]}[demo,report]")
    run(environment / "igcv", "train", "recipes/digits.toml", "--out", "digits", cwd=tmp_path)
    assert (tmp_path / "digits" / "report.html").is_file()
    top1 = float(
        run(environment / "igcv", "evaluate", "digits", cwd=tmp_path).split("top-1 ")[1].split(" %")[0]
    )
    assert top1 > 95


def test_the_source_distribution_gives_the_same_wheel(files: tuple[Path, Path], tmp_path: Path) -> None:
    with tarfile.open(files[1]) as tar:
        tar.extractall(tmp_path, filter="data")
    [source] = tmp_path.iterdir()
    run(sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", tmp_path, cwd=source)
    [rebuilt] = tmp_path.glob("*.whl")
    with zipfile.ZipFile(rebuilt) as new, zipfile.ZipFile(files[0]) as old:
        assert {info.filename: info.CRC for info in new.infolist()} == {
            info.filename: info.CRC for info in old.infolist()
        }
