"""RecordIO: handwritten bytes, files of igcv's writer, files of MXNet, and every kind of damage."""

import pickle
import struct
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from igcv.data import RecordFile, write_records
from igcv.errors import InputError

MAGIC = struct.pack("<I", 0xCED7230A)
MXNET_FILES = Path(__file__).parents[2] / "shared" / "data" / "cifar10_jpeg"


def refused(message: str, kind: type[Exception] = InputError):
    return pytest.raises(kind, match=message)


def encoded(kind: str, shade: int = 100) -> bytes:
    file = BytesIO()
    Image.new("RGB", (8, 8), (shade, 0, 0)).save(file, kind)
    return file.getvalue()


def part(cflag: int, payload: bytes) -> bytes:
    return MAGIC + struct.pack("<I", cflag << 29 | len(payload)) + payload + bytes(-len(payload) % 4)


def header(label: float = 0.0, flag: int = 0, key: int = 0) -> bytes:
    return struct.pack("<IfQQ", flag, label, key, 0)


def opened(tmp_path: Path, content: bytes) -> RecordFile:
    path = tmp_path / "hand.rec"
    path.write_bytes(content)
    return RecordFile(path)


@pytest.mark.parametrize("with_index", [True, False])
def test_written_records_come_back(tmp_path, with_index):
    path = tmp_path / "a.rec"
    images = [encoded("JPEG", 10), encoded("PNG", 20), encoded("JPEG", 30) + b"x", b""]
    write_records(path, zip([3, 0.0, [7, 1.5], (2,)], images, strict=True))
    if not with_index:
        path.with_suffix(".idx").unlink()
    records = RecordFile(path)
    assert len(records) == 4
    assert [(label, bytes(image)) for label, image in map(records.__getitem__, range(4))] == list(
        zip([3, 0, 7, 2], images, strict=True)
    )
    assert records.labels().tolist() == [3, 0, 7, 2] and records.labels().dtype == np.int64
    assert records.record(2) == header(flag=2, key=2) + struct.pack("<2f", 7, 1.5) + images[2]


def test_bytes_of_one_record_written_out_by_hand(tmp_path):
    path = tmp_path / "a.rec"
    write_records(path, [(5, b"abcde")])
    assert path.read_bytes() == (
        MAGIC + b"\x1d\0\0\0" + b"\0\0\0\0" + b"\0\0\xa0\x40" + bytes(16) + b"abcde\0\0\0"
    )
    assert path.with_suffix(".idx").read_text() == "0\t0\n"


@pytest.mark.parametrize(
    "image, cuts",
    [
        (MAGIC, 1),
        (MAGIC * 3, 3),
        (b"abcd" + MAGIC + b"efgh" + MAGIC + b"i", 2),
        (b"a" + MAGIC + b"bcd", 0),
        (MAGIC[:2] + MAGIC[:2] + MAGIC, 1),
    ],
)
def test_magic_numbers_in_an_image_are_cut_out_and_put_back(tmp_path, image, cuts):
    path = tmp_path / "a.rec"
    write_records(path, [(1, image), (2, b"next")])
    content = path.read_bytes()
    aligned = [at for at in range(0, len(content), 4) if content[at : at + 4] == MAGIC]
    assert len(aligned) == cuts + 2  # one frame per part: two records, and one more part per split
    path.with_suffix(".idx").unlink()
    records = RecordFile(path)
    assert [bytes(records[i][1]) for i in range(2)] == [image, b"next"]
    assert records.labels().tolist() == [1, 2]


def test_parts_by_hand_with_the_cut_in_the_header(tmp_path):
    payload = header(label=4, key=0xCED7230A) + b"image"  # the id is the magic number, at byte 8
    records = opened(tmp_path, part(1, payload[:8]) + part(3, payload[12:]) + part(0, header(9)))
    assert records.record(0) == payload
    assert records.labels().tolist() == [4, 9] and bytes(records[0][1]) == b"image"


def test_index_decides_the_order(tmp_path):
    path = tmp_path / "a.rec"
    write_records(path, [(label, b"x" * label) for label in range(4)])
    index = path.with_suffix(".idx")
    index.write_text("".join(reversed(index.read_text().splitlines(keepends=True))) + "\n")
    assert RecordFile(path).labels().tolist() == [3, 2, 1, 0]


def test_pickled_reader_opens_its_file_again(tmp_path):
    write_records(tmp_path / "a.rec", [(1, b"one"), (2, b"two")])
    records = pickle.loads(pickle.dumps(RecordFile(tmp_path / "a.rec")))
    assert records.labels().tolist() == [1, 2] and bytes(records[1][1]) == b"two"


def test_every_truncation_is_refused_or_at_a_record_boundary(tmp_path):
    whole = part(0, header(1) + b"abcde") + part(1, header(2)) + part(2, b"") + part(3, b"xyz")
    boundaries = {len(part(0, header(1) + b"abcde")): 1, len(whole): 2}
    for size in range(1, len(whole) + 1):
        if size in boundaries:
            assert len(opened(tmp_path, whole[:size])) == boundaries[size]
        else:
            with refused(
                rf"hand.rec: at byte \d+ found the end of the file at byte {size}, "
                r"expected .*Copy or create the file again"
            ):
                opened(tmp_path, whole[:size])


FIRST = part(0, header())  # 32 bytes
DAMAGE = {
    "foreign": (
        b"\x89PNG\r\n\x1a\n" * 4,
        "at byte 0 found 0x474e5089, expected the RecordIO magic number 0xced7230a",
    ),
    "garbage after a record": (
        FIRST + b"garbage!",
        "at byte 32 found 0x62726167, expected the RecordIO magic",
    ),
    "length beyond the file": (
        MAGIC + b"\xff\xff\xff\x1f",
        "expected 536870911 bytes of payload, padded to 4, from",
    ),
    "no such flag": (FIRST + part(5, b""), "at byte 32 found a part with flag 5, expected a flag from 0"),
    "starts in the middle": (part(3, b"abcd"), "at byte 0 found a part with flag 3, expected the start of a"),
    "first part alone": (part(1, b"") + FIRST, "at byte 8 found a part with flag 0, expected the contin"),
}


@pytest.mark.parametrize("content, message", DAMAGE.values(), ids=DAMAGE)
def test_damaged_frames(tmp_path, content, message):
    with refused(message):
        opened(tmp_path, content)


CONTENTS = {
    "short header": (b"abc", "at byte 32 found a record of 3 bytes, expected at least the 24 bytes"),
    "labels beyond the record": (
        header(flag=4_000_000_000) + b"ab",
        "with 4000000000 labels in a record of 26 bytes, expected 16000000024",
    ),
    "fraction": (header(1.5), "found the label 1.5, expected a class number: an integer from 0"),
    "negative": (
        header(-2),
        "found the label -2, expected a class number: an integer from 0, or -1 for unlabeled",
    ),
    "not a number": (header(float("nan")), "found the label nan, expected"),
    "infinite": (header(float("inf")), "found the label inf, expected"),
    "fraction in an array": (header(flag=1) + struct.pack("<f", 0.5), "found the label 0.5, expected"),
}


@pytest.mark.parametrize("payload, message", CONTENTS.values(), ids=CONTENTS)
def test_damaged_payloads(tmp_path, payload, message):
    records = opened(tmp_path, FIRST + part(0, payload))
    assert records[0][0] == 0
    with refused(message):
        records[1]
    with refused(message):
        records.labels()


INDEXES = {
    "beyond the file": ("0\t0\n1\t64\n", "got offset 64 for .*hand.rec .64 bytes."),
    "not aligned": ("0\t2\n", "got offset 2 for"),
    "negative": ("0\t-4\n", "line 1: got '0.*-4', expected 'key<tab>offset'. Delete the index"),
    "one column": ("0\t0\n32\n", "line 2: got '32', expected 'key<tab>offset'"),
    "huge": ("0\t" + "9" * 30, "line 1: got .*expected 'key<tab>offset'"),
    "empty": ("", "the index is empty, expected a line 'key<tab>offset' per record. Delete the index"),
    "not at a record": ("0\t40\n", "at byte 40 found 0x.*expected the RecordIO.*or its .idx belongs to"),
}


@pytest.mark.parametrize("text, message", INDEXES.values(), ids=INDEXES)
def test_bad_indexes(tmp_path, text, message):
    (tmp_path / "hand.idx").write_text(text)
    with refused(message):
        opened(tmp_path, FIRST * 2)


def test_indexed_file_cut_short(tmp_path):
    path = tmp_path / "a.rec"
    write_records(path, [(0, b"a" * 50), (1, b"b" * 50)])
    path.write_bytes(path.read_bytes()[:-8])
    with refused("at byte 84 found the end of the file at byte 160"):
        RecordFile(path)


def test_missing_empty_and_folder(tmp_path):
    with refused(r"none.rec: cannot be read \(No such file or directory\), expected a RecordIO"):
        RecordFile(tmp_path / "none.rec")
    with refused("the file is empty, expected RecordIO records"):
        opened(tmp_path, b"")
    with refused(r"cannot be read \(Is a directory\)"):
        RecordFile(tmp_path)


@pytest.mark.skipif(not MXNET_FILES.is_dir(), reason=f"needs MXNet's own files in {MXNET_FILES}")
def test_files_written_by_mxnet(tmp_path):
    indexed = RecordFile(MXNET_FILES / "cifar10_val.rec")
    (tmp_path / "alone.rec").symlink_to(MXNET_FILES / "cifar10_val.rec")
    scanned = RecordFile(tmp_path / "alone.rec")
    assert len(indexed) == len(scanned) == 10_000
    assert np.bincount(indexed.labels()).tolist() == [1000] * 10
    assert (indexed.labels() == scanned.labels()).all()
    assert Image.open(BytesIO(indexed[9_999][1])).convert("RGB").size == (32, 32)
