"""Text files with a byte order mark, and text files in unsupported encodings."""

import json
import shutil
from pathlib import Path

import pytest

from igcv.data import write_records
from igcv.data.recordio import RecordFile
from igcv.data.sources.listed import read_list
from igcv.data.sources.open import open_source
from igcv.errors import InputError
from igcv.reading import read_text
from igcv.training import load_recipe
from igcv.training.run import read_metrics
from igcv.weights.foreign.mxnet_files import read_symbol
from tests.test_sources import png, tiny_imagenet

BOM = b"\xef\xbb\xbf"


def mark(file: Path) -> Path:
    file.write_bytes(BOM + file.read_bytes())
    return file


@pytest.fixture
def records(tmp_path: Path) -> Path:
    write_records(tmp_path / "t.rec", [(i % 2, png(i)) for i in range(20)])
    return tmp_path / "t.rec"


@pytest.mark.parametrize("name", ["synset.txt", "classes.txt", "labels.txt"])
def test_class_names(name: str, records: Path) -> None:
    (records.parent / name).write_bytes(
        BOM + "airplane\r\nca\N{LATIN SMALL LETTER E WITH ACUTE}\r\n".encode()
    )
    assert open_source(f"rec:{records}").class_names == ("airplane", "ca\N{LATIN SMALL LETTER E WITH ACUTE}")


def test_every_other_text_file(records: Path, tmp_path: Path) -> None:
    mark(records.with_suffix(".idx"))
    assert RecordFile(records).keys.tolist() == list(range(20))
    (tmp_path / "list.csv").write_bytes(BOM + b"path,label\r\na.png,x\r\n")
    assert [image[:2] for image in read_list(tmp_path / "list.csv").images] == [("a.png", "x")]
    (tmp_path / "mine.toml").write_bytes(BOM + b"epochs = 3\n")
    assert load_recipe(tmp_path / "mine.toml").epochs == 3
    (tmp_path / "metrics.jsonl").write_bytes(BOM + b'{"epoch": 1}\n')
    assert read_metrics(tmp_path) == [{"epoch": 1}]
    symbol = {"nodes": [{"op": "null", "name": "data", "inputs": []}]}
    (tmp_path / "a-symbol.json").write_bytes(BOM + json.dumps(symbol).encode())
    assert read_symbol(tmp_path / "a-symbol.json")[0].name == "data"
    root = tiny_imagenet(tmp_path / "tiny")
    for file in ("wnids.txt", "words.txt", "val/val_annotations.txt"):
        mark(root / file)
    assert open_source(f"tinyimagenet:{root}").class_names == ("goldfish", "tailed frog")
    shutil.rmtree(root)


def test_a_file_that_timm_reads(tmp_path: Path) -> None:
    (tmp_path / "_info.json").write_bytes(BOM + b"{}")
    with pytest.raises(
        InputError, match=r"_info.json: starts with a byte order mark, expected plain UTF-8 for timm"
    ):
        open_source(f"timm/wds/{tmp_path}")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_wide_text_is_refused(encoding: str, records: Path) -> None:
    (records.parent / "classes.txt").write_bytes("cat\ndog\n".encode(encoding))
    with pytest.raises(
        InputError,
        match=r"classes.txt: got UTF-16 or binary data, expected class names.*Save the file as UTF-8",
    ):
        open_source(f"rec:{records}")


def test_the_encoding_of_windows_is_refused(records: Path) -> None:
    (records.parent / "classes.txt").write_bytes(
        "cat\nca\N{LATIN SMALL LETTER E WITH ACUTE}\n".encode("cp1252")
    )
    with pytest.raises(
        InputError, match=r"classes.txt, line 2: byte 0xe9 is not UTF-8, expected class names, one per line"
    ):
        open_source(f"rec:{records}")


def test_no_file(tmp_path: Path) -> None:
    with pytest.raises(
        InputError, match=r"gone.txt: cannot be read \(No such file or directory\), expected words"
    ):
        read_text(tmp_path / "gone.txt", "words")
