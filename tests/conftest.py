"""Small real data for all tests, and the command line run in this process."""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from PIL import Image
from sklearn.datasets import load_digits

from igcv.cli import main

Igcv = Callable[..., "Outcome"]


class Outcome(NamedTuple):
    """How a command ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def igcv_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Igcv:
    """`igcv ...` in this process: exit status and what it printed."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["igcv", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Outcome(int(end.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Handwritten zeros and ones in class folders: 24 for training, 10 for validation, 16 x 16 pixels."""
    root = tmp_path_factory.mktemp("digits")
    digits = load_digits()
    for label, name in enumerate(("one", "zero")):
        images = digits.images[digits.target == 1 - label][:17]
        for i, pixels in enumerate(images):
            folder = root / ("train" if i < 12 else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15.9).astype("uint8")).resize((16, 16)).save(folder / f"{i}.png")
    return root
