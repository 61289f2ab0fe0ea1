"""Reader and writer of MXNet RecordIO image files (.rec).

A file is a sequence of parts, each `magic, cflag << 29 | length, payload, zeros to 4 bytes`, little-endian.
A record is one part (cflag 0), or several (1 first, 2 middle, 3 last) if its payload contains the magic number
at a multiple of 4 bytes. The writer removes the number there, and the reader restores it between the parts.
A record's payload is a header (flag, label, id, second id), `flag` float32 labels, and an encoded image.
Source: dmlc-core `recordio.h`, MXNet `recordio.py`.
"""

import mmap
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import numpy as np

from igcv.errors import InputError
from igcv.reading import read_text

MAGIC = 0xCED7230A
_MAGIC_BYTES = struct.pack("<I", MAGIC)
_FRAME = struct.Struct("<II")  # magic, cflag << 29 | length
_HEADER = struct.Struct("<IfQQ")  # flag (number of labels that follow), label, id, second id
_WHOLE, _FIRST, _MIDDLE, _LAST = range(4)
_MAX_PART = 1 << 29  # bytes; the length has 29 bits
UNLABELLED = -1
_MAX_LABEL = 1 << 24  # above this value, float32 cannot represent every integer


class RecordFile:
    """Memory-mapped records of one .rec file by number; can be pickled to other processes.

    Records are in the order of the `.idx` file next to the .rec file if there is one, else in file order.

    Args:
        path: the .rec file.

    Attributes:
        keys: key of each record in the index, int64 of shape (len,); the numbers from 0 if there is no index, or if
            its keys are not unique numbers.

    Raises:
        InputError: the file is missing, empty, truncated or not RecordIO, or the index does not match the file.
    """

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)
        self._map = _open_map(self.path)
        index = self.path.with_suffix(".idx")
        if index.is_file():
            self._offsets, self.keys = self._indexed(index)
        else:
            self._offsets = self._scanned()
            self.keys = np.arange(len(self._offsets))

    def __len__(self) -> int:
        return len(self._offsets)

    def __getstate__(self) -> dict[str, object]:
        return {"path": self.path, "_offsets": self._offsets, "keys": self.keys}

    def __setstate__(self, state: dict[str, object]) -> None:
        self.__dict__.update(state)
        self._map = _open_map(self.path)  # a memory map cannot be pickled

    def __getitem__(self, i: int) -> tuple[int, memoryview]:
        """Return the label and the encoded image of record `i`; the label of an unlabeled record is UNLABELLED.

        A record with two or more labels and no image counts as unlabeled. In face data sets, the header and the
        table of persons are such records.

        Raises:
            InputError: the record is damaged or its label is not an integer.
        """
        label, image_start, payload = self._opened(i)
        return label, payload[image_start:]

    def record(self, i: int) -> bytes:
        """Return the whole payload of record `i`: header, labels and encoded image."""
        return bytes(self._payload(self._offsets[i]))

    def labels(self) -> np.ndarray:
        """Return the labels of all records, int64 of shape (len,), reading only headers, not images."""
        return np.fromiter((self._opened(i)[0] for i in range(len(self))), np.int64, len(self))

    def _opened(self, i: int) -> tuple[int, int, memoryview]:
        """Return the label of record `i`, the start of its image in the payload, and the payload."""
        offset = self._offsets[i]
        payload = self._payload(offset)
        if len(payload) < _HEADER.size:
            raise self._damaged(
                offset,
                f"a record of {len(payload)} bytes",
                f"at least the {_HEADER.size} bytes of an image record's header",
            )
        flag, label, _, _ = _HEADER.unpack_from(payload)
        image_start = _HEADER.size + 4 * flag
        if image_start > len(payload):
            raise self._damaged(
                offset,
                f"a header with {flag} labels in a record of {len(payload)} bytes",
                f"{image_start} bytes or more",
            )
        if flag > 1 and image_start == len(payload):
            return UNLABELLED, image_start, payload
        if flag:
            (label,) = struct.unpack_from("<f", payload, _HEADER.size)
        if not (UNLABELLED <= label < _MAX_LABEL and float(label).is_integer()):
            raise self._damaged(
                offset, f"the label {label:g}", "a class number: an integer from 0, or -1 for unlabeled"
            )
        return int(label), image_start, payload

    def _payload(self, offset: int) -> memoryview:
        whole = memoryview(self._map)
        parts = [whole[start:end] for start, end in self._parts(int(offset))]
        return parts[0] if len(parts) == 1 else memoryview(_MAGIC_BYTES.join(parts))

    def _parts(self, offset: int) -> Iterator[tuple[int, int]]:
        """Yield start and end byte of the payload of each part of the record at `offset`."""
        cflag, start, end = self._part(offset)
        if cflag not in (_WHOLE, _FIRST):
            raise self._damaged(offset, f"a part with flag {cflag}", "the start of a record (flag 0 or 1)")
        yield start, end
        while cflag in (_FIRST, _MIDDLE):
            offset = _aligned(end)
            cflag, start, end = self._part(offset)
            if cflag not in (_MIDDLE, _LAST):
                raise self._damaged(
                    offset, f"a part with flag {cflag}", "the continuation of a record (flag 2 or 3)"
                )
            yield start, end

    def _part(self, offset: int) -> tuple[int, int, int]:
        """Return flag, payload start and payload end of the part at `offset`, checked against the file."""
        start, size = offset + _FRAME.size, len(self._map)
        if start > size:
            raise self._damaged(offset, f"the end of the file at byte {size}", "a record's 8-byte frame")
        magic, coded = _FRAME.unpack_from(self._map, offset)
        if magic != MAGIC:
            raise self._damaged(offset, f"0x{magic:08x}", f"the RecordIO magic number 0x{MAGIC:08x}")
        cflag, length = coded >> 29, coded % _MAX_PART
        if cflag > _LAST:
            raise self._damaged(offset, f"a part with flag {cflag}", "a flag from 0 to 3")
        if _aligned(start + length) > size:
            raise self._damaged(
                offset,
                f"the end of the file at byte {size}",
                f"{length} bytes of payload, padded to 4, from byte {start}",
            )
        return cflag, start, start + length

    def _scanned(self) -> np.ndarray:
        offsets, position = [], 0
        while position < len(self._map):
            offsets.append(position)
            *_, (_, end) = self._parts(position)
            position = _aligned(end)
        return np.array(offsets, np.int64)

    def _indexed(self, index: Path) -> tuple[np.ndarray, np.ndarray]:
        """Return the offsets and keys of the records in an index."""
        offsets, keys = _read_index(index)
        misplaced = offsets[(offsets < 0) | (offsets > len(self._map) - _FRAME.size) | (offsets % 4 != 0)]
        if len(misplaced):
            raise InputError(
                f"{index}: got offset {misplaced[0]} for {self.path} ({len(self._map)} bytes), expected a multiple of "
                "4 within the file. Copy the file again, or delete the index to scan the file for records"
            )
        if len(np.unique(offsets)) < len(offsets):
            raise InputError(
                f"{index}: got an offset in {self.path} twice, expected each record once. Delete the index to scan the "
                "file for records"
            )
        for _ in self._parts(int(offsets.max())):  # detects a truncated file at its last record
            pass
        return offsets, keys

    def _damaged(self, offset: int, found: str, expected: str) -> InputError:
        return InputError(
            f"{self.path}: at byte {offset} found {found}, expected {expected}. The file is damaged, incomplete or not "
            "RecordIO, or its .idx belongs to another file. Copy or create the file again"
        )


def write_records(path: str | Path, items: Iterable[tuple[float | Sequence[float], bytes]]) -> None:
    """Write an MXNet RecordIO image file, and its index next to it with the extension .idx.

    Args:
        path: the .rec file to write; an existing file is replaced.
        items: for each image, its label (or several labels: the first is the class) and its JPEG or PNG bytes.

    Raises:
        InputError: a record is too large for the format.
    """
    path = Path(path)
    with path.open("wb") as records, path.with_suffix(".idx").open("w") as index:
        for key, (label, image) in enumerate(items):
            index.write(f"{key}\t{records.tell()}\n")
            payload = _pack(key, label, image)
            if len(payload) >= _MAX_PART:
                raise InputError(
                    f"{path}: record {key} has {len(payload)} bytes, expected fewer than "
                    f"{_MAX_PART}. Store a smaller image"
                )
            records.writelines(_frames(payload))


def _pack(key: int, label: float | Sequence[float], image: bytes) -> bytes:
    if np.ndim(label) == 0:
        return _HEADER.pack(0, label, key, 0) + image
    labels = np.asarray(label, "<f4")
    return _HEADER.pack(len(labels), 0.0, key, 0) + labels.tobytes() + image


def _frames(payload: bytes) -> Iterator[bytes]:
    """Yield the bytes of one record: framed and padded parts, split at each aligned magic number."""
    cuts = [at for at in _occurrences(payload, _MAGIC_BYTES) if at % 4 == 0]
    starts = [0, *(at + 4 for at in cuts)]
    ends = [*cuts, len(payload)]
    flags = [_FIRST, *[_MIDDLE] * (len(cuts) - 1), _LAST] if cuts else [_WHOLE]
    for flag, start, end in zip(flags, starts, ends, strict=True):
        yield _FRAME.pack(MAGIC, flag << 29 | end - start)
        yield payload[start:end]
        yield bytes(-(end - start) % 4)


def _occurrences(data: bytes, pattern: bytes) -> Iterator[int]:
    at = data.find(pattern)
    while at >= 0:
        yield at
        at = data.find(pattern, at + 1)


def _aligned(position: int) -> int:
    return position + -position % 4


def _open_map(path: Path) -> mmap.mmap:
    try:
        with path.open("rb") as file:
            return mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    except ValueError:  # mmap refuses an empty file
        raise InputError(
            f"{path}: the file is empty, expected RecordIO records. Copy or create the file again"
        ) from None
    except OSError as error:
        raise InputError(
            f"{path}: cannot be read ({error.strerror}), expected a RecordIO file (.rec). Check the path"
        ) from None


def _read_index(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """Return the offsets in bytes and the keys, int64, of an index with a line `key <tab> offset` per record."""
    offsets, keys = [], []
    text = read_text(path, "lines 'key<tab>offset'", errors="replace")
    for number, line in enumerate(text.splitlines(), start=1):
        match line.split():
            case [key, offset] if offset.isascii() and offset.isdigit() and len(offset) < 19:
                offsets.append(int(offset))
                keys.append(int(key) if key.isascii() and key.isdigit() and len(key) < 19 else -1)
            case []:
                continue
            case _:
                raise InputError(
                    f"{path}, line {number}: got {line[:40]!r}, expected 'key<tab>offset'. "
                    "Delete the index to scan the file for records"
                )
    if not offsets:
        raise InputError(
            f"{path}: the index is empty, expected a line 'key<tab>offset' per record. "
            "Delete the index to scan the file for records"
        )
    numbers = keys if min(keys) >= 0 and len(set(keys)) == len(keys) else range(len(keys))
    return np.array(offsets, np.int64), np.array(numbers, np.int64)
