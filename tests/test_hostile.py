"""Untrusted files: every reader gives a correct result or its documented error, in bounded time and memory."""

import ast
import json
import os
import tracemalloc
from pathlib import Path

import hypothesis
import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors import safe_open
from safetensors.torch import load, save

from igcv.data import BadImageError, decode
from studies.soak.readers import CORPUS, READERS

if not CORPUS.is_dir():
    pytest.skip("only a clone of the repository has the corpus of the fuzzer", allow_module_level=True)
ROOT = Path(__file__).parents[1]
SEEDS = {name: sorted(path.read_bytes() for path in (CORPUS / name).iterdir()) for name in READERS}
WORDS = st.sampled_from(
    [b"\x00", b"\xff" * 4, b"\xff" * 8, b"\x7f\xff\xff\xff", b"[" * 200, b'"', b"\n", b"1e999"]
)
EXAMPLES = hypothesis.settings(max_examples=60, deadline=None, derandomize=True, database=None)


@st.composite
def damaged(draw: st.DrawFn, seeds: list[bytes]) -> bytes:
    """Draw a corpus file with replaced, removed or repeated bytes, and sometimes random bytes."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=300))
    data = draw(st.sampled_from(seeds))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, len(data)))
        length = draw(st.integers(0, 12))
        put = draw(st.one_of(st.binary(max_size=12), WORDS, st.just(data[start : start + 40])))
        data = data[:start] + put + data[start + length :]
    return data


@pytest.mark.parametrize("name", READERS)
def test_every_file_of_the_corpus(name: str) -> None:
    assert SEEDS[name], "the corpus has no files for this reader"
    messages = [READERS[name](data) for data in SEEDS[name]]
    assert "" in messages, "no file of the corpus can be read"


@pytest.mark.parametrize("name", READERS)
def test_damaged_files(name: str) -> None:
    @EXAMPLES
    @given(damaged(SEEDS[name]))
    def try_it(data: bytes) -> None:
        READERS[name](data)

    try_it()


@pytest.mark.parametrize("name", [name for name in READERS if name != "image"])
def test_memory_follows_the_size_of_the_file(name: str) -> None:
    """The memory of Python and NumPy; the constant covers the reader's own memory for a tiny file."""

    @hypothesis.settings(EXAMPLES, max_examples=25)
    @given(damaged(SEEDS[name]))
    def try_it(data: bytes) -> None:
        tracemalloc.start()
        READERS[name](data)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert peak < 2**22 + 100 * len(data)

    READERS[name](SEEDS[name][0])  # imports and caches are not measured
    try_it()


@pytest.mark.parametrize(
    "change",
    [
        {"num_classes": 10**15, "class_names": []},
        {"num_classes": 10**40, "class_names": []},
        {"num_classes": True, "class_names": ["a"]},
        {"num_classes": -1, "class_names": []},
        {"input_size": 10**40},
        {"model": "igcv3_d_100", "multiplier": 1e30},
        {"model": "igcv3_d_100", "multiplier": float("nan")},
        {"model": "igcv3_d_100", "multiplier": 16.0, "num_classes": 10**6, "class_names": []},
        {"model": "igcv1_l9999m9999_d998"},
        {"model": "x" * 10**5},
        {"model": "../../etc/passwd"},
        {"class_names": [["a"], ["b"]]},
        {"preprocessing": []},
    ],
)
def test_a_card_that_promises_too_much(change: dict) -> None:
    """A network of terabytes is refused before any allocation."""
    seed = CORPUS / "weights" / "small"
    with safe_open(seed, "pt") as file:
        card = json.loads(file.metadata()["igcv"])
    message = READERS["weights"](save(load(seed.read_bytes()), {"igcv": json.dumps(card | change)}))
    assert message
    assert len(message) < 1000


@pytest.mark.parametrize(
    "field, value, got, expected",
    [
        ("model", 3, "3", "text"),
        ("input_size", 0, "0", "1 to 65536"),
        ("class_names", [1] * 10, "(1, 1, 1, 1, 1, 1, ...)", "a list of texts"),
        ("class_ids", ["n1"] * 9, "9 names", "10, as num_classes says"),
        ("strides", [1.5], "(1.5,)", "integers"),
    ],
)
def test_the_error_of_a_card_field(field: str, value: object, got: str, expected: str) -> None:
    card = json.loads((CORPUS / "card" / "small").read_text()) | {"num_classes": 10, "class_names": []}
    message = READERS["card"](json.dumps(card | {field: value}).encode())
    assert f"card field '{field}': got {got}, expected {expected}. Save the weights again." in message


@pytest.mark.parametrize("field, value", [("input_size", 10**9), ("crop", 1e-12)])
def test_preprocessing_of_a_stranger_cannot_fill_the_memory(field: str, value: float) -> None:
    card = json.loads((CORPUS / "card" / "small").read_text())
    card["preprocessing"][field] = value
    assert f"preprocessing {field}: got {value!r}, expected" in READERS["card"](json.dumps(card).encode())


def test_a_small_file_of_a_huge_image() -> None:
    """PNG headers with huge image sizes; Pillow only warns below twice its limit."""
    png = bytearray((CORPUS / "image" / "png").read_bytes())
    at = png.index(b"IHDR") + 4
    for width, height in ((30_000, 30_000), (10_000, 9_000), (2**31 - 1, 2**31 - 1)):
        png[at : at + 8] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
        with pytest.raises(BadImageError, match="not a readable image"):
            decode(bytes(png), "bomb")


def test_no_image_runs_a_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow would run Ghostscript for a PostScript file with any name."""
    program = tmp_path / "gs"
    program.write_text(f"#!/bin/sh\ntouch {tmp_path / 'ran'}\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    drawing = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 8 8\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadImageError):
        decode(drawing, "photo.jpg").load()
    assert not (tmp_path / "ran").exists()


def test_a_type_that_torch_does_not_have() -> None:
    """The 4-bit types of safetensors give a clear error."""
    header = json.dumps({"w": {"dtype": "F4", "shape": [2], "data_offsets": [0, 1]}}).encode()
    assert "is not a readable safetensors file" in READERS["weights"](
        len(header).to_bytes(8, "little") + header + b"0"
    )


def test_an_index_that_names_a_record_again() -> None:
    assert "got an offset in" in READERS["index"](b"0\t0\n1\t0\n")


def test_nothing_of_ours_can_run_what_a_file_says() -> None:
    """No module evaluates code, unpacks archives, or unpickles more than tensors; torchvision's CIFAR checks MD5.

    Two modules open zip archives, to count and to copy the bytes of one file (see test_downloads.py). A zip archive at
    the end of a LiteRT file has the card. A .pt2 file is a zip archive (see test_hostile_programs.py).
    """
    forbidden = {"eval", "exec", "compile", "__import__"}
    modules = {"pickle", "marshal", "shelve", "dill", "joblib", "yaml"}
    weights = ("weights/download", "weights/foreign/torch_files")
    readers = (*weights, "engines/litert", "engines/program", "deploy/writers/litert")
    archives = {ROOT / f"igcv/{name}.py" for name in readers}
    calls = {("np", "load"), ("numpy", "load")}
    for path in (ROOT / "igcv").rglob("*.py"):
        modules = modules - {"zipfile"} if path in archives else modules | {"zipfile"}
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                assert not modules & {name.name.partition(".")[0] for name in node.names}, path
            if isinstance(node, ast.ImportFrom):
                assert (node.module or "").partition(".")[0] not in modules, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
                assert node.func.id not in forbidden, path
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
                called = (ast.unparse(node.func.value), node.func.attr)
                assert called not in calls and called[1] != "extractall", path
                assert called[1] != "extract" or called[0] == "extractor", (
                    path
                )  # ncnn's word for running a network
                tensors_alone = "weights_only=True" in map(ast.unparse, node.keywords)
                assert called != ("torch", "load") or tensors_alone, path
                assert called != ("torch.jit", "load"), path
                assert called != ("torch.export", "load") or path == ROOT / "igcv/engines/program.py", path
