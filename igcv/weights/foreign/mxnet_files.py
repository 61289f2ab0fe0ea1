"""MXNet checkpoint files as numpy arrays and graph nodes, without MXNet.

`NAME-0000.params` is the NDArray list format of `mx.nd.save`, and `NAME-symbol.json` is the graph. `NDArray::Save` in
MXNet's src/ndarray/ndarray.cc and `Tuple::Save` in tuple.h write this little-endian layout:

    uint64 0x112, uint64 reserved, uint64 count, NDArray[count], uint64 count, (uint64 n, char name[n])[count]
    NDArray: uint32 version word, int32 storage type (V2 and V3), uint32 ndim, int64 dims[ndim],
             int32 device type, int32 device id, int32 type flag, elements in C order

V1 has 64-bit dims. V2 (MXNet 1.x) adds the storage type: 0 is dense, and this reader rejects sparse arrays. V3 is V2
with numpy shape semantics: ndim 0 is a scalar, and a dim of -1 is unknown. In V0, the oldest version, the version word
is ndim, and the dims are uint32. An unset array (V0 to V2: ndim 0, V3: a dim of -1) ends after its dims; the reader
returns an empty float32 array. The reader executes nothing and checks lengths before use.
"""

import json
import math
import os
import reprlib
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Any

import numpy as np

from igcv.errors import InputError

LIST_MAGIC = struct.pack("<Q", 0x112)
V2_WORD = 0xF993FAC9
VERSIONS = {0xF993FAC8: 1, V2_WORD: 2, 0xF993FACA: 3}
DTYPES = tuple(np.dtype(t) for t in ("<f4", "<f8", "<f2", "u1", "<i4", "i1", "<i8", "?"))  # by type flag
DTYPE_NAMES = ", ".join(f"{flag} {dtype}" for flag, dtype in enumerate(DTYPES))
DEVICES = (1, 2, 3, 5)  # cpu, gpu, cpu_pinned, cpu_shared; the bytes are the same for all
MAX_NDIM = 32  # the limit of older numpy versions
MAX_SYMBOL_BYTES = 2**24  # 70 times the graph of IGCV3
FOREIGN = {b"PK": "a zip archive (PyTorch? .npz?)", b"\x80": "a pickle", b"{": "JSON (the symbol file?)"}


def read_params(path: str | Path) -> dict[str, np.ndarray]:
    """Read a `.params` file of any MXNet 0.x or 1.x.

    Returns:
        The arrays by key, in the order of the file. In a checkpoint, keys are "arg:NAME" for weights and "aux:NAME" for
        batch-norm statistics. The arrays are writable copies.

    Raises:
        InputError: if the file is missing, truncated, damaged, sparse, without names or of another format.
    """
    with _opened(Path(path), "an MXNet .params file") as file:
        reader = ByteReader(file)
        count = _read_list_header(reader)
        arrays = [_read_array(reader, f"array {index} of {count}") for index in range(count)]
        names = _read_names(reader, count)
        reader.expect(reader.left == 0, reader.at, f"{reader.left} bytes more", "the end of the file")
    return dict(zip(names, arrays, strict=True))


def write_params(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write a `.params` file, byte for byte as `mx.nd.save(path, arrays)` of MXNet 1.9.1 (V2, context cpu(0)).

    Args:
        path: the file to write.
        arrays: arrays by key, e.g. "arg:fc_weight", of the dtypes in `DTYPES`, with 1 to 32 dimensions.

    Raises:
        InputError: if the format cannot store an array (V2 has no scalars), or `path` cannot be written.
    """
    count = struct.pack("<Q", len(arrays))
    bodies: list[Any] = [part for name in arrays for part in _array_parts(f"{path}: {name!r}", arrays[name])]
    names = [_name_part(f"{path}: {name!r}", name) for name in arrays]
    try:
        with open(path, "wb") as file:
            file.writelines([LIST_MAGIC, bytes(8), count, *bodies, count, *names])
    except OSError as error:
        raise InputError(f"{path}: cannot be written ({error.strerror}). Choose another path.") from error


@dataclass(frozen=True)
class Node:
    """Node of an MXNet graph; `op` is "null" for an input or a weight, and `inputs` are node indices."""

    name: str
    op: str
    inputs: tuple[int, ...]
    attrs: dict[str, str]


def read_symbol(path: str | Path) -> list[Node]:
    """Read the nodes of a `-symbol.json` file, in the order of the file. Every input precedes the nodes that use it.

    The settings of an operator are under "attrs", or under "attr" or "param" in older files. If a node has several of
    these keys, the newer key takes precedence, as in nnvm's JSON loader (src/pass/saveload_json.cc).

    Raises:
        InputError: if the file is not a symbol file, exceeds 16 MiB, or a node uses an output of its input other than
            the first (the graphs of IGCV use only first outputs).
    """
    graph = _load_json(Path(path))
    nodes: Any = graph.get("nodes") if isinstance(graph, dict) else None
    good = isinstance(nodes, list) and len(nodes) > 0
    _expect(good, f"{path}: at byte 0", reprlib.repr(graph), 'an object with a list "nodes"')
    return [_node(f"{path}: node {index}", index, raw) for index, raw in enumerate(nodes)]


class ByteReader:
    """Sequential reader of a file, which reports invalid content as an InputError with the offset."""

    def __init__(self, file: BufferedReader) -> None:
        self.file, self.part = file, "the header"
        self.at, self.left = 0, os.fstat(file.fileno()).st_size

    def expect(self, good: bool, offset: int, found: str, expected: str) -> None:
        _expect(good, f"{self.file.name}: at byte {offset} ({self.part})", found, expected)

    def raw(self, size: int, what: str) -> np.ndarray:
        """Return a copy of the next `size` bytes as a uint8 array."""
        data = np.empty(size if size <= self.left else 0, np.uint8)
        complete = self.file.readinto(data.data) == size
        self.expect(complete, self.at, f"{self.left} bytes left", f"{size} of {what}; is the file complete?")
        self.at, self.left = self.at + size, self.left - size
        return data

    def numbers(self, form: str, what: str) -> tuple[int, ...]:
        """Return the next little-endian numbers; `form` is a format of `struct`."""
        return struct.unpack("<" + form, self.raw(struct.calcsize("<" + form), what).tobytes())


def _read_list_header(reader: ByteReader) -> int:
    head = reader.raw(min(8, reader.left), "the list magic").tobytes()
    kinds = [kind for start, kind in FOREIGN.items() if head.startswith(start)]
    found = [*kinds, f"the bytes '{head.hex(' ')}'"][0]
    reader.expect(head == LIST_MAGIC, 0, found, f"'{LIST_MAGIC.hex(' ')}' (an MXNet .params file)")
    _, count = reader.numbers("QQ", "the reserved word and the number of arrays")
    left = reader.left  # an array and its name take at least 4 + 8 bytes
    reader.expect(12 * count <= left, 16, f"{count} arrays in {left} bytes", "at least 12 bytes for each")
    return count


def _read_array(reader: ByteReader, part: str) -> np.ndarray:
    """Read one NDArray; the module docstring gives the layout and its versions."""
    reader.part = part
    (word,) = reader.numbers("I", "the version word")
    version = VERSIONS.get(word, 0)
    if version >= 2:
        (kind,) = reader.numbers("i", "the storage type")
        reader.expect(kind == 0, reader.at - 4, f"storage type {kind}", "0 (MXNet's tostype('default'))")
    ndim = reader.numbers("I", "the number of dimensions")[0] if version else word
    expected = f"0 to {MAX_NDIM} dimensions{'' if version else ' or a version word, 0xf993fac8 to ..ca'}"
    reader.expect(ndim <= MAX_NDIM, reader.at - 4, f"the word {ndim:#x}", expected)
    offset = reader.at
    shape = reader.numbers(f"{ndim}{'q' if version else 'I'}", "dimensions")
    known = min(shape, default=0) >= (-1 if version == 3 else 0)
    reader.expect(known, offset, f"the shape {shape}", "no negative dimension")
    if -1 in shape or (ndim == 0 and version < 3):
        return np.empty(0, np.float32)  # an unset array ends here
    device, _, flag = reader.numbers("iii", "the context and the type flag")
    reader.expect(device in DEVICES, reader.at - 12, f"device type {device}", f"one of {DEVICES}")
    reader.expect(0 <= flag < len(DTYPES), reader.at - 4, f"type flag {flag}", f"one of: {DTYPE_NAMES}")
    return _read_elements(reader, shape, DTYPES[flag])


def _read_elements(reader: ByteReader, shape: tuple[int, ...], dtype: np.dtype) -> np.ndarray:
    span = math.prod(max(size, 1) for size in shape)  # numpy may also reject (0, 2**60)
    reader.expect(span < 2**60, reader.at, f"the shape {shape}", "a shape that fits the file")
    data = reader.raw(math.prod(shape) * dtype.itemsize, f"elements of a {shape} {dtype} array")
    if dtype.kind == "b" and data.size:
        worst = int(data.argmax())
        reader.expect(data[worst] <= 1, reader.at - data.size + worst, f"the bool {data[worst]}", "0 or 1")
    return data.view(dtype).reshape(shape)


def _read_names(reader: ByteReader, count: int) -> list[str]:
    reader.part = "the list of names"
    found = reader.numbers("Q", "the number of names")[0]
    reader.expect(found == count, reader.at - 8, f"{found} names", f"{count} (save a dict, not a list)")
    names: dict[str, None] = {}
    for _ in range(count):
        (size,) = reader.numbers("Q", "the length of a name")
        start = reader.at
        raw = reader.raw(size, "a name").tobytes()
        name = raw.decode(errors="replace")
        reader.expect(name.encode() == raw, start, f"the name {raw[:99]!r}", "UTF-8")
        reader.expect(name not in names, start, f"the name {name[:99]!r} a second time", "every name once")
        names[name] = None
    return list(names)


@contextmanager
def _opened(path: Path, what: str) -> Iterator[BufferedReader]:
    if not path.is_file():
        raise InputError(f"{path}: found {'no file' if not path.exists() else 'not a file'}, expected {what}")
    try:
        with path.open("rb") as file:
            yield file
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}), expected {what}") from error


def _expect(good: bool, where: str, found: str, expected: str) -> None:
    if not good:
        raise InputError(f"{where}: found {found}, expected {expected}")


def _name_part(where: str, name: str) -> bytes:
    text = name.encode(errors="replace")
    _expect(text.decode() == name, where, "a lone surrogate", "a name that UTF-8 can hold")
    return struct.pack("<Q", len(text)) + text


def _array_parts(where: str, given: np.ndarray) -> tuple[bytes, np.ndarray]:
    """Return the header and the elements of one V2 NDArray on cpu(0)."""
    dtype, ndim = given.dtype.newbyteorder("<"), given.ndim
    _expect(dtype in DTYPES, where, f"dtype {given.dtype}", f"one of: {DTYPE_NAMES}")
    _expect(1 <= ndim <= MAX_NDIM, where, f"{ndim} dimensions", f"1 to {MAX_NDIM} (reshape a scalar to (1,))")
    header = struct.pack(f"<IiI{ndim}qiii", V2_WORD, 0, ndim, *given.shape, 1, 0, DTYPES.index(dtype))
    return header, np.ascontiguousarray(given, dtype)


def _load_json(path: Path) -> Any:
    with _opened(path, "an MXNet -symbol.json file") as file:
        # read() allocates the requested size, so do not request more than the size of the file.
        data = file.read(min(os.fstat(file.fileno()).st_size, MAX_SYMBOL_BYTES) + 1)
    _expect(len(data) <= MAX_SYMBOL_BYTES, f"{path}: at byte {len(data) - 1}", "more bytes", "16 MiB at most")
    try:
        return json.loads(data.decode("utf-8-sig"))
    except (ValueError, RecursionError) as error:  # bad UTF-8, bad JSON, huge numbers, thousands of brackets
        offset = getattr(error, "start", getattr(error, "pos", 0))  # characters are bytes: MXNet writes ASCII
        found = repr(data[offset : offset + 20]) if offset < len(data) else "the end of the file"
        raise InputError(f"{path}: at byte {offset}: found {found}, expected JSON ({error})") from error


def _node(where: str, index: int, raw: Any) -> Node:
    _expect(isinstance(raw, dict), where, reprlib.repr(raw), "an object")
    for key, kind in (("name", str), ("op", str), ("inputs", list)):
        found = f'"{key}" = {reprlib.repr(raw.get(key))}'
        _expect(isinstance(raw.get(key), kind), where, found, f"a {kind.__name__}")
    attrs: dict[str, str] = {}
    for key in ("param", "attr", "attrs"):  # oldest first: the newer key takes precedence
        given = raw.get(key, {})
        strings = isinstance(given, dict) and all(isinstance(value, str) for value in given.values())
        _expect(strings, where, f'"{key}" = {reprlib.repr(given)}', "an object of strings")
        attrs |= given
    return Node(raw["name"], raw["op"], tuple(_source(where, index, entry) for entry in raw["inputs"]), attrs)


def _source(where: str, index: int, entry: Any) -> int:
    """Return the node of an `inputs` entry [node, output] or [node, output, version]."""
    good = isinstance(entry, list) and len(entry) in (2, 3) and all(type(number) is int for number in entry)
    good = good and 0 <= entry[0] < index and entry[1] == 0
    expected = f"[node, 0] or [node, 0, version], node an earlier one (0 <= node < {index})"
    _expect(good, where, f"the input {reprlib.repr(entry)}", expected)
    return entry[0]
