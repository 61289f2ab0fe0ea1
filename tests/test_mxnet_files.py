"""MXNet's file formats, compared with handwritten bytes and with files of MXNet 1.9.1."""

import json
import re
import struct
import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from igcv.errors import InputError
from igcv.weights.foreign.mxnet_files import Node, read_params, read_symbol, write_params

REFERENCE = Path(__file__).parents[2] / "shared" / "reference" / "mxnet"
V1, V2, V3 = 0xF993FAC8, 0xF993FAC9, 0xF993FACA
CPU0 = struct.pack("<ii", 1, 0)
F32, SIX = struct.pack("<i", 0), struct.pack("<6f", 0.0, 0.5, 1.0, 1.5, 2.0, 2.5)
SIX_ARRAY = np.array([[0.0, 0.5, 1.0], [1.5, 2.0, 2.5]], np.float32)
# Type flags of mshadow/base.h, `struct`'s letter for each, and the numpy type.
TYPES = [
    (0, "f", np.float32),
    (1, "d", np.float64),
    (2, "e", np.float16),
    (3, "B", np.uint8),
    (4, "i", np.int32),
    (5, "b", np.int8),
    (6, "q", np.int64),
    (7, "?", np.bool_),
]


def listed(*arrays: bytes, names: tuple[bytes, ...] = (b"arg:w",), count: int | None = None) -> bytes:
    """Return a whole file from the bytes of its arrays."""
    count = len(arrays) if count is None else count
    tail = b"".join(struct.pack("<Q", len(name)) + name for name in names)
    return struct.pack("<QQQ", 0x112, 0, count) + b"".join(arrays) + struct.pack("<Q", len(names)) + tail


def v2(shape: tuple[int, ...], flag: int, data: bytes, word: int = V2, context: bytes = CPU0) -> bytes:
    dims = struct.pack(f"<I{len(shape)}q", len(shape), *shape)
    return struct.pack("<Ii", word, 0) + dims + context + struct.pack("<i", flag) + data


SIX_BY_VERSION = {
    "V0": struct.pack("<III", 2, 2, 3) + CPU0 + F32 + SIX,
    "V1": struct.pack("<IIqq", V1, 2, 2, 3) + CPU0 + F32 + SIX,
    "V2": struct.pack("<IiIqq", V2, 0, 2, 2, 3) + CPU0 + F32 + SIX,
    "V3": struct.pack("<IiIqq", V3, 0, 2, 2, 3) + CPU0 + F32 + SIX,
}
UNSET = {
    "V0": struct.pack("<I", 0),
    "V1": struct.pack("<II", V1, 0),
    "V2": struct.pack("<IiI", V2, 0, 0),
    "V3": struct.pack("<IiIqq", V3, 0, 2, -1, 3),
}


@pytest.fixture
def file(tmp_path):
    """Return a function that writes bytes to a file and returns its path."""
    path = tmp_path / "some-0000.params"

    def write(data: bytes) -> Path:
        path.write_bytes(data)
        return path

    return write


def message(path: Path, read=read_params) -> str:
    with pytest.raises(InputError) as caught:
        read(path)
    text = str(caught.value)
    assert "\n" not in text and text.startswith(f"{path}: ") and "expected" in text
    return text


@pytest.mark.parametrize("version", SIX_BY_VERSION)
def test_every_version_of_an_array(file, version):
    arrays = read_params(file(listed(SIX_BY_VERSION[version])))
    assert list(arrays) == ["arg:w"] and arrays["arg:w"].dtype == np.float32
    np.testing.assert_array_equal(arrays["arg:w"], SIX_ARRAY)
    assert arrays["arg:w"].flags.writeable


@pytest.mark.parametrize("version", UNSET)
def test_an_array_never_set_ends_after_its_shape(file, version):
    data = listed(UNSET[version], SIX_BY_VERSION["V2"], names=(b"arg:none", b"arg:w"))
    arrays = read_params(file(data))
    assert arrays["arg:none"].shape == (0,)
    np.testing.assert_array_equal(arrays["arg:w"], SIX_ARRAY)


@pytest.mark.parametrize(("flag", "letter", "dtype"), TYPES)
def test_every_type_both_ways(file, tmp_path, flag, letter, dtype):
    values = [True, False, True] if letter == "?" else [1, 0, 100]
    data = listed(v2((3, 1), flag, struct.pack(f"<3{letter}", *values)))
    array = read_params(file(data))["arg:w"]
    assert array.dtype == dtype and array.shape == (3, 1) and array.ravel().tolist() == values
    write_params(tmp_path / "again", {"arg:w": array})
    assert (tmp_path / "again").read_bytes() == data


def test_numpy_shapes_scalar_and_zero_size(file):
    scalar = v2((), 1, struct.pack("<d", 2.5), word=V3)
    zero = v2((0, 2**59), 1, b"", word=V3)
    arrays = read_params(file(listed(scalar, zero, names=(b"s", b"z"))))
    assert arrays["s"].shape == () and arrays["s"] == 2.5
    assert arrays["z"].shape == (0, 2**59)


def test_arrays_saved_from_a_gpu_and_names_beyond_ascii(file):
    data = listed(
        v2((1,), 4, struct.pack("<i", -7), context=struct.pack("<ii", 2, 3)), names=("gewicht-ü".encode(),)
    )
    assert read_params(file(data))["gewicht-ü"].tolist() == [-7]


def test_an_empty_list_and_file_order(file, tmp_path):
    assert read_params(file(listed(names=()))) == {}
    write_params(tmp_path / "none", {})
    assert (tmp_path / "none").read_bytes() == listed(names=())
    two = listed(v2((1,), 3, b"\1"), v2((1,), 3, b"\2"), names=(b"aux:z", b"arg:a"))
    assert [(k, int(v[0])) for k, v in read_params(file(two)).items()] == [("aux:z", 1), ("arg:a", 2)]


def test_writing_any_layout_and_byte_order(tmp_path):
    write_params(tmp_path / "a", {"arg:w": np.asfortranarray(SIX_ARRAY).astype(">f4")})
    assert (tmp_path / "a").read_bytes() == listed(SIX_BY_VERSION["V2"])
    write_params(str(tmp_path / "a"), {"arg:w": SIX_ARRAY.repeat(2, axis=1)[:, ::2]})
    assert (tmp_path / "a").read_bytes() == listed(SIX_BY_VERSION["V2"])


@pytest.mark.parametrize(
    ("array", "text"),
    [
        (np.zeros(2, np.complex64), "found dtype complex64, expected one of: 0 float32, 1 float64"),
        (np.zeros(2, object), "found dtype object"),
        (np.zeros(2, np.uint16), "found dtype uint16"),
        (np.float32(1.0), r"found 0 dimensions, expected 1 to 32 \(reshape a scalar to \(1,\)\)"),
    ],
)
def test_what_cannot_be_written(tmp_path, array, text):
    with pytest.raises(InputError, match="'arg:w': " + text):
        write_params(tmp_path / "out", {"arg:ok": SIX_ARRAY, "arg:w": array})
    assert not (tmp_path / "out").exists()


def test_names_and_places_that_cannot_be_written(tmp_path):
    with pytest.raises(InputError, match="lone surrogate"):
        write_params(tmp_path / "out", {"\ud800": SIX_ARRAY})
    with pytest.raises(InputError, match="cannot be written"):
        write_params(tmp_path / "no" / "out", {})


@pytest.mark.parametrize("version", SIX_BY_VERSION)
def test_truncation_at_every_byte(file, version):
    data = listed(SIX_BY_VERSION[version])
    for size in range(len(data)):
        assert "at byte " in message(file(data[:size])), size


@pytest.mark.parametrize("version", SIX_BY_VERSION)
def test_every_flipped_bit(file, version):
    data = listed(SIX_BY_VERSION[version], UNSET[version], v2((2,), 7, b"\0\1"), names=(b"arg:w", b"n", b"b"))
    refused = []
    for bit in range(8 * len(data)):
        flipped = bytearray(data)
        flipped[bit // 8] ^= 1 << bit % 8
        try:
            arrays = read_params(file(flipped))
        except InputError as error:
            refused.append(str(error))
        else:
            assert len(arrays) == 3 and all(isinstance(a, np.ndarray) for a in arrays.values())
    assert all("at byte " in reason for reason in refused)
    assert len(refused) > 8 * 8 * 8  # at the very least the magic, the counts and the lengths


HUGE = 2**60
REFUSED = {
    "empty": (b"", "at byte 0 .* the bytes ''"),
    "zip": (b"PK\3\4" + bytes(40), "at byte 0 .* a zip archive"),
    "pickle": (b"\x80\4K\1." + bytes(40), "at byte 0 .* a pickle"),
    "safetensors": (struct.pack("<Q", 2) + b"{}", "at byte 0 .* the bytes '02 00 00"),
    "text": (b"epoch,accuracy\n" * 9, "at byte 0 .* the bytes '65 70 6f"),
    "json": (b'{"nodes": []}', "symbol file"),
    "count": (listed(SIX_BY_VERSION["V2"], count=HUGE), f"at byte 16 .* {HUGE} arrays in "),
    "elements": (listed(v2((HUGE,), 0, SIX)), "at byte 56 .* a shape that fits"),
    "many elements": (listed(v2((2**40,), 0, SIX)), f"at byte 56 .* 45 bytes left, expected {2**42} of"),
    "product": (listed(v2((2**31,) * 4, 0, SIX)), "at byte 80 .* a shape that fits"),
    "product of zero size": (listed(v2((0,) + (2**31,) * 4, 0, b"")), "a shape that fits"),
    "negative": (listed(v2((2, -3), 0, SIX)), r"at byte 36 .*array 0 of 1.* the shape \(2, -3\)"),
    "unknown in V3": (listed(v2((2, -2), 0, SIX, word=V3)), "no negative dimension"),
    "ndim": (listed(struct.pack("<IiI", V2, 0, 33) + SIX * 20), "at byte 32 .* the word 0x21"),
    "no array": (listed(b"\xff" * 60), "at byte 24 .* the word 0xffffffff, expected .* 0xf993fac8"),
    "row sparse": (listed(struct.pack("<Ii", V2, 1) + SIX), "at byte 28 .* storage type 1, expected 0"),
    "csr": (listed(struct.pack("<Ii", V3, 2) + SIX), "at byte 28 .* storage type 2"),
    "undefined": (listed(struct.pack("<Ii", V2, -1) + SIX), "at byte 28 .* storage type -1"),
    "device": (listed(v2((6,), 0, SIX, context=struct.pack("<ii", 9, 0))), "at byte 44 .* device type 9"),
    "type": (listed(v2((6,), 8, SIX)), "at byte 52 .* type flag 8, expected one of: 0 float32"),
    "negative type": (listed(v2((6,), -1, SIX)), "at byte 52 .* type flag -1"),
    "bool": (listed(v2((3,), 7, b"\0\2\1")), "at byte 57 .* the bool 2, expected 0 or 1"),
    "no names": (listed(v2((1,), 3, b"\1"), names=()), r"at byte 57 .* 0 names, expected 1 \(save a dict"),
    "more names": (listed(v2((1,), 3, b"\1"), names=(b"a", b"b")), "2 names, expected 1"),
    "huge names": (listed(v2((1,), 3, b"\1"), names=())[:-8] + struct.pack("<Q", HUGE), f"{HUGE} names"),
    "same name": (listed(*[v2((1,), 3, b"\1")] * 2, names=(b"a", b"a")), "at byte 115 .* 'a' a second time"),
    "no UTF-8": (listed(v2((1,), 3, b"\1"), names=(b"a\xff",)), r"at byte 73 .* expected UTF-8"),
    "trailing": (listed(SIX_BY_VERSION["V2"]) + b"\0\0", "at byte 109 .* 2 bytes more, expected the end"),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_refused(file, case):
    data, text = REFUSED[case]
    assert re.search(text, message(file(data)))


def test_a_claim_of_any_size_costs_no_memory(file):
    """The headers in `REFUSED` claim 2**40 to 2**124 elements; tracemalloc includes NumPy's memory."""
    paths = [file(data).rename(file(b"").with_name(str(i))) for i, (data, _) in enumerate(REFUSED.values())]
    start = time.perf_counter()
    tracemalloc.start()
    try:
        for path in paths:
            with pytest.raises(InputError):
                read_params(path)
        assert tracemalloc.get_traced_memory()[1] < 2**18
    finally:
        tracemalloc.stop()
    assert time.perf_counter() - start < 2


def test_a_long_name_that_is_not_there(file):
    data = listed(SIX_BY_VERSION["V2"], names=())[:-8] + struct.pack("<QQ", 1, HUGE) + b"w"
    assert f"1 bytes left, expected {HUGE} of a name; is the file complete?" in message(file(data))


def test_paths_that_are_no_file(tmp_path):
    assert "found no file, expected an MXNet .params file" in message(tmp_path / "absent")
    assert "found not a file" in message(tmp_path)
    assert "found no file" in message(tmp_path / "absent", read_symbol)


PARAMS = sorted(REFERENCE.glob("*/*.params"))
SYMBOLS = sorted(REFERENCE.glob("*/*-symbol.json"))
real = pytest.mark.skipif(not PARAMS, reason=f"no MXNet reference files in {REFERENCE}")


@real
@pytest.mark.parametrize("path", PARAMS, ids=lambda path: path.parent.name)
def test_real_files_are_written_back_byte_for_byte(tmp_path, path):
    write_params(tmp_path / "again", read_params(path))
    assert (tmp_path / "again").read_bytes() == path.read_bytes()


@real
@pytest.mark.parametrize("path", SYMBOLS, ids=lambda path: path.parent.name)
def test_real_weights_are_the_variables_of_their_graph(path):
    nodes = read_symbol(path)
    variables = {node.name for node in nodes if node.op == "null"} - {"data", "softmax_label"}
    arrays = read_params(str(path).replace("-symbol.json", "-0000.params"))
    assert {key.split(":", 1)[1] for key in arrays} == variables
    assert all(set(node.inputs) <= set(range(index)) for index, node in enumerate(nodes))


@real
def test_the_first_real_weight_and_the_size_of_igcv3():
    """The rounding rule, the seed and the parameter count of 3,491,688 are from the README."""
    arrays = read_params(REFERENCE / "igcv3_1.0" / "igcv3_1.0-0000.params")
    weights = {key: array for key, array in arrays.items() if key.startswith("arg:")}
    assert sum(array.size for array in weights.values()) == 3_491_688
    first = next(iter(weights.values()))
    assert first.shape == (32, 3, 3, 3)
    sd = (2 / 27) ** 0.5
    step = 2.0 ** round(np.log2(sd / 4))
    expected = np.round(np.random.RandomState(11).randn(32, 3, 3, 3) * sd / step) * step
    np.testing.assert_array_equal(first, expected.astype(np.float32))


def graph(*nodes: object) -> bytes:
    return json.dumps({"nodes": nodes, "arg_nodes": [0], "heads": [[len(nodes) - 1, 0, 0]]}).encode()


DATA = {"op": "null", "name": "data", "inputs": []}


@pytest.mark.parametrize("word", ["attrs", "attr", "param"])
def test_a_symbol_in_every_spelling(file, word):
    relu = {"op": "Activation", "name": "relu", word: {"act_type": "relu"}, "inputs": [[0, 0]]}
    add = {"op": "_Plus", "name": "add", "inputs": [[0, 0, 0], [1, 0, 0]]}
    assert read_symbol(file(graph(DATA, relu, add))) == [
        Node("data", "null", (), {}),
        Node("relu", "Activation", (0,), {"act_type": "relu"}),
        Node("add", "_Plus", (0, 1), {}),
    ]


def test_the_newer_spelling_wins(file):
    node = DATA | {"attrs": {"a": "3"}, "attr": {"a": "2", "b": "2"}, "param": {"a": "1", "b": "1", "c": "1"}}
    assert read_symbol(file(graph(node)))[0].attrs == {"a": "3", "b": "2", "c": "1"}


BAD_SYMBOLS = {
    "empty": (b"", "at byte 0: found the end of the file, expected JSON"),
    "params": (listed(SIX_BY_VERSION["V2"]), "at byte "),
    "cut": (graph(DATA)[:30], "at byte "),
    "UTF-8": (b'{"nodes\xff": []}', "at byte 7: found .*xff"),
    "deep": (b"[" * 100_000, "expected JSON"),
    "digits": (b'{"nodes": ' + b"9" * 10_000 + b"}", "expected JSON"),
    "long": (b" " * (2**24 + 1), f"at byte {2**24}: found more bytes, expected 16 MiB at most"),
    "list": (b"[1, 2]", r"found \[1, 2\], expected an object with a list"),
    "no nodes": (b'{"nodes": 3}', "expected an object with a list"),
    "empty nodes": (graph(), "expected an object with a list"),
    "text node": (graph("data"), "node 0: found 'data', expected an object"),
    "no name": (graph({"op": "null", "inputs": []}), 'node 0: found "name" = None, expected a str'),
    "op": (graph(DATA | {"op": None}), '"op" = None'),
    "inputs": (graph(DATA | {"inputs": {}}), '"inputs" = {}, expected a list'),
    "attrs": (graph(DATA | {"attrs": {"a": 1}}), "node 0: found \"attrs\" = {'a': 1}, expected an object of"),
    "attrs list": (graph(DATA | {"attr": []}), 'node 0: found "attr" = '),
    "itself": (graph(DATA, DATA | {"inputs": [[1, 0, 0]]}), r"node 1: found the input \[1, 0, 0\], expected"),
    "forward": (graph(DATA | {"inputs": [[1, 0, 0]]}, DATA), "node 0: found the input"),
    "before the first": (graph(DATA, DATA | {"inputs": [[-1, 0, 0]]}), "node 1: found the input"),
    "second output": (graph(DATA, DATA | {"inputs": [[0, 1, 0]]}), r"node 1: found the input \[0, 1, 0\]"),
    "short input": (graph(DATA, DATA | {"inputs": [[0]]}), "node 1: found the input"),
    "number input": (graph(DATA, DATA | {"inputs": [0]}), "node 1: found the input 0"),
    "truth input": (graph(DATA, DATA | {"inputs": [[False, 0, 0]]}), "node 1: found the input"),
    "float input": (graph(DATA, DATA | {"inputs": [[0.0, 0, 0]]}), "node 1: found the input"),
}


@pytest.mark.parametrize("case", BAD_SYMBOLS)
def test_symbols_that_are_refused(file, case):
    data, text = BAD_SYMBOLS[case]
    with pytest.raises(InputError, match=text):
        read_symbol(file(data))
    message(file(data), read_symbol)


def test_a_symbol_truncated_at_every_byte(file):
    data = graph(DATA, DATA | {"attrs": {"lr_mult": "1"}, "inputs": [[0, 0, 0]]})
    for size in range(len(data)):
        assert "at byte " in message(file(data[:size]), read_symbol)
