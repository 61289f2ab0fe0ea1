"""Untrusted .param and .tflite files: the parts that igcv reads itself."""

import zipfile
from pathlib import Path

import pytest
import torch

import igcv
from igcv.data.preprocessing import CIFAR
from igcv.deploy.writers.settings import ExportSettings
from igcv.deploy.writers.table import WRITERS
from igcv.engines.opened import open_session
from igcv.errors import InputError
from igcv.weights.card import Card
from tests.conftest import randomized

CARD = Card(
    model="igcv1_l4m2_d20",
    num_classes=10,
    input_size=32,
    strides=(1, 1, 2, 2),
    preprocessing=CIFAR.to_dict(),
).to_json()


def foreign(tmp_path: Path, format: str) -> Path:
    """Write a small network for an engine with a card that igcv reads itself."""
    path = tmp_path / {"ncnn": "x.param", "litert": "x.tflite"}[format]
    network = igcv.fold(randomized("igcv1_l4m2_d20"), "dense")
    WRITERS[format].load()(
        network, torch.zeros(1, 3, 32, 32), path, ExportSettings(format=format), {"igcv": CARD}
    )
    return path


@pytest.mark.parametrize("text", ["[]", "3", '{"shape": 3}', '{"shape": ["a"]}', "{", "[" * 10**5, "\udcff"])
def test_the_json_next_to_an_ncnn_file(tmp_path: Path, text: str) -> None:
    pytest.importorskip("ncnn", reason="ncnn is not installed")
    path = foreign(tmp_path, "ncnn")
    open_session(path)
    path.with_suffix(".json").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError):
        open_session(path)


def test_the_archive_in_a_litert_file(tmp_path: Path) -> None:
    pytest.importorskip("ai_edge_litert", reason="LiteRT is not installed")
    path = foreign(tmp_path, "litert")
    open_session(path)
    bare = path.read_bytes()[: path.read_bytes().index(b"PK\x03\x04")]
    path.write_bytes(bare)
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("igcv.json", b" " * 10**8)
    with pytest.raises(InputError, match="a card of 100,000,000 bytes"):
        open_session(path)
