"""Tests of foreign files given as weights: the error names the format and a fix, and nothing is executed."""

import gzip
import io
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save

import igcv
from igcv.errors import InputError


class Bomb:
    """Object whose unpickling creates a file."""

    def __reduce__(self) -> tuple[Callable[[str], object], tuple[str]]:
        return os.mkdir, ("executed",)


def saved(**options: bool) -> bytes:
    """Return the bytes of a torch.save file."""
    content = io.BytesIO()
    torch.save({"conv.weight": torch.zeros(2)}, content, **options)
    return content.getvalue()


def zipped() -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr("photos/a.jpg", b"")
    return content.getvalue()


def array() -> bytes:
    content = io.BytesIO()
    np.save(content, np.zeros(2))
    return content.getvalue()


CONVERT = (
    "convert weights of pytorchcv, torchvision and timm with: igcv convert 'my file.bin' OUT.safetensors"
)
KINDS = {
    "torch": (saved(), f"a PyTorch checkpoint (a pickle in a zip archive); {CONVERT}"),
    "old torch": (
        saved(_use_new_zipfile_serialization=False),
        f"a PyTorch checkpoint of an old format (a pickle); {CONVERT}",
    ),
    "pickle": (pickle.dumps(Bomb()), f"a Python pickle; {CONVERT}"),
    "zip": (zipped(), "an archive (zip)"),
    "gzip": (gzip.compress(b"x"), "a compressed file (gzip)"),
    "numpy": (array(), "a NumPy array"),
    "mxnet": (
        (0x112).to_bytes(8, "little") + bytes(80),
        "an MXNet checkpoint; convert weights of MXNet with: igcv convert",
    ),
    "page": (b"<!DOCTYPE html>", "an HTML or XML page, possibly from a failed download"),
}


@pytest.mark.parametrize("kind", KINDS)
def test_a_file_is_named_for_what_it_is(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content, said = KINDS[kind]
    monkeypatch.chdir(tmp_path)
    Path("my file.bin").write_bytes(content)
    with pytest.raises(InputError) as error:
        igcv.load("my file.bin")
    assert str(error.value).startswith(f"'my file.bin' is {said}")
    assert str(error.value).endswith("Expected weights of igcv (.safetensors)")
    assert not Path("executed").exists()


def test_safetensors_of_others(tmp_path: Path) -> None:
    file = tmp_path / "timm.safetensors"
    file.write_bytes(save({"conv.weight": torch.zeros(2)}))
    with pytest.raises(InputError, match=f"has no igcv card.*igcv convert {file} OUT.safetensors"):
        igcv.load(file)
    file.write_bytes(file.read_bytes()[:-3])
    with pytest.raises(InputError, match="is not a readable safetensors file"):
        igcv.load(file)
