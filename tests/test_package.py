"""The files of the package, and the files that git ignores."""

import subprocess
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def ignored(*paths: str) -> set[str]:
    """Return the paths that git ignores."""
    command = ["git", "check-ignore", "--no-index", *paths]
    return set(subprocess.run(command, cwd=ROOT, capture_output=True, text=True).stdout.split())


def test_the_wheel_is_typed() -> None:
    """The wheel contains all files of `igcv` that git does not ignore, with the PEP 561 marker."""
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]
    assert build["targets"]["wheel"]["packages"] == ["igcv"] and "exclude" not in build["targets"]["wheel"]
    assert (ROOT / "igcv" / "py.typed").read_bytes() == b""
    files = [
        str(path.relative_to(ROOT)) for path in (ROOT / "igcv").rglob("*") if "__pycache__" not in path.parts
    ]
    assert "igcv/py.typed" in files and not ignored(*files)


def test_what_runs_leave_is_ignored_and_nothing_else() -> None:
    left = [
        "data/cifar-10-batches-py/x",
        "runs/digits/recipe.toml",
        "runs.html",
        "digits.onnx",
        "predictions.csv",
    ]
    kept = [
        "igcv/data/new.py",
        "tests/data/new.csv",
        "studies/runs/new.py",
        "docs/page/new.md",
        "released/a.safetensors",
    ]
    assert ignored(*left, *kept) == set(left)
