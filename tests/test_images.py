"""Pixels of an image from every kind of source; the rows of docs/images.md."""

import re
import struct
import tracemalloc
import warnings
import zlib
from collections.abc import Callable, Iterator
from io import BytesIO
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps

from igcv.data import (
    BadImageError,
    as_rgb,
    decode,
    plain_transform,
    read_image,
    train_transform,
    write_records,
)
from igcv.data.decoding import MAX_BYTES, MAX_PIXELS, max_pixels
from igcv.data.formats import IMAGE_FORMATS, READ, UNREAD, is_read
from igcv.data.images import RecordImages
from igcv.data.preprocessing import AS_STORED, CIFAR, IMAGENET, PIXELS, Preprocessing
from igcv.data.sources.open import open_source
from igcv.data.sources.timm import TimmImages
from igcv.data.streams import StreamImages
from igcv.errors import InputError

ORIENTATION = 0x112
RNG = np.random.default_rng(0)
COLORS = Image.fromarray(RNG.integers(0, 256, (6, 9, 3), np.uint8))
ALPHA = Image.fromarray(RNG.integers(0, 256, (6, 9), np.uint8))


def file_of(image: Image.Image, kind: str = "PNG", **settings: Any) -> bytes:
    written = BytesIO()
    image.save(written, kind, **settings)
    return written.getvalue()


def turned(orientation: int) -> Image.Exif:
    exif = Image.Exif()
    exif[ORIENTATION] = orientation
    return exif


def with_alpha(image: Image.Image, alpha: Image.Image) -> Image.Image:
    image = image.copy()
    image.putalpha(alpha)
    return image


def on_white(colors: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Return the color composited over white by the formula."""
    share = alpha[..., None].astype(float) / 255
    return np.floor(colors * share + 255 * (1 - share) + 0.5).astype(np.uint8)


def with_transparent_color() -> bytes:
    """Return a palette image with alpha as bytes, as web programs write it; its first entry is transparent."""
    palette = COLORS.quantize(8)
    return file_of(palette, transparency=bytes([0, 128]))


def gray_16() -> Image.Image:
    return Image.fromarray(np.linspace(0, 65_535, 54).astype(np.uint16).reshape(6, 9))


FILES: dict[str, bytes] = {
    "rgb.png": file_of(COLORS),
    "gray.png": file_of(COLORS.convert("L")),
    "black_and_white.png": file_of(COLORS.convert("1")),
    "palette.png": file_of(COLORS.quantize(8)),
    "palette_alpha.png": with_transparent_color(),
    "rgba.png": file_of(with_alpha(COLORS, ALPHA)),
    "gray_alpha.png": file_of(with_alpha(COLORS.convert("L"), ALPHA)),
    "color_key.png": file_of(COLORS, transparency=COLORS.getpixel((0, 0))),
    "gray_16.png": file_of(gray_16()),
    "gray_16.tiff": file_of(gray_16(), "TIFF"),
    "gray_16.pgm": b"P5 9 6 65535\n" + np.asarray(gray_16()).astype(">u2").tobytes(),
    "cmyk.jpg": file_of(COLORS.convert("CMYK"), "JPEG"),
    "rgb.jpg": file_of(COLORS, "JPEG"),
    "turned.jpg": file_of(COLORS, "JPEG", exif=turned(6)),
    "turned.png": file_of(COLORS, exif=turned(8)),
    "turned.webp": file_of(COLORS, "WEBP", lossless=True, exif=turned(5)),
    "turned.tiff": file_of(COLORS, "TIFF", exif=turned(3)),
    "turned_alpha.png": file_of(with_alpha(COLORS, ALPHA), exif=turned(7)),
    "turned_16.png": file_of(gray_16(), exif=turned(6)),
    "animated.gif": file_of(COLORS, "GIF", save_all=True, append_images=[Image.new("RGB", (9, 6))]),
    "see_through.gif": file_of(COLORS.quantize(8), "GIF", transparency=2),
    "animated.png": file_of(COLORS, save_all=True, append_images=[Image.new("RGB", (9, 6))]),
    "two_views.mpo": file_of(COLORS, "MPO", save_all=True, append_images=[Image.new("RGB", (9, 6))]),
    "pages.tiff": file_of(COLORS, "TIFF", save_all=True, append_images=[Image.new("RGB", (9, 6))]),
}
REFUSED = {
    "float.tiff": file_of(Image.fromarray(np.ones((6, 9), np.float32)), "TIFF"),
    "int.tiff": file_of(Image.fromarray(np.ones((6, 9), np.int32)), "TIFF"),
}


def by_path(encoded: bytes, folder: Path) -> Image.Image:
    (folder / "file").write_bytes(encoded)
    return read_image(folder / "file")


def by_record(encoded: bytes, folder: Path) -> Image.Image:
    write_records(folder / "a.rec", [(0, encoded)])
    return RecordImages(folder / "a.rec")[0][0]


def by_reader(image: object) -> Image.Image:
    """Map-style data set of timm or torchvision with one given item."""
    items = SimpleNamespace(targets=[0], __len__=lambda: 1)
    dataset = type("Items", (), {"__len__": lambda self: 1, "__getitem__": lambda self, i: (image, 0)})()
    dataset.targets = items.targets
    return TimmImages(dataset, "set")[0][0]


WAYS: dict[str, Callable[[bytes, Path], Image.Image]] = {
    "bytes": lambda encoded, folder: decode(encoded, "x"),
    "path": by_path,
    "record": by_record,
    "reader of files": lambda encoded, folder: by_reader(BytesIO(encoded)),
    "reader of PIL images": lambda encoded, folder: by_reader(Image.open(BytesIO(encoded))),
    "PIL image": lambda encoded, folder: as_rgb(Image.open(BytesIO(encoded)), "x"),
}


@pytest.mark.parametrize("name", FILES)
def test_every_way_in_gives_the_same_pixels(name: str, tmp_path: Path) -> None:
    expected = np.asarray(decode(FILES[name], name))
    assert expected.shape in ((6, 9, 3), (9, 6, 3)) and expected.dtype == np.uint8
    for way, opened in WAYS.items():
        found = opened(FILES[name], tmp_path)
        assert found.mode == "RGB"
        assert np.array_equal(found, expected), way
        assert np.array_equal(as_rgb(found, name), expected), f"{way}: not changed by a second time"
    pre = Preprocessing(4, CIFAR.mean, CIFAR.std, 1.0, "bicubic")
    raw, ours = Image.open(BytesIO(FILES[name])), decode(FILES[name], name)
    assert torch.equal(plain_transform(pre)(raw), plain_transform(pre)(ours))


@pytest.mark.parametrize("name", REFUSED)
def test_deeper_pixels_are_refused_everywhere(name: str, tmp_path: Path) -> None:
    for way, opened in WAYS.items():
        with pytest.raises(
            BadImageError,
            match=r": got 32-bit pixels \(mode [IF]\), expected 8 or 16 bits. Convert the image to 8-bit",
        ):
            pytest.fail(f"{way}: {opened(REFUSED[name], tmp_path)}")


def test_data_sets_of_torchvision(tmp_path: Path) -> None:
    """torchvision's data sets open files themselves, and would drop transparency."""
    from torchvision.datasets import ImageFolder

    (tmp_path / "a").mkdir()
    for name in ("rgba.png", "turned.jpg", "gray_16.png"):
        (tmp_path / "a" / name).write_bytes(FILES[name])
    images = TimmImages(ImageFolder(str(tmp_path)), "set")
    for i, name in enumerate(("gray_16.png", "rgba.png", "turned.jpg")):
        assert np.array_equal(images[i][0], decode(FILES[name], name)), name


class Reader:
    """Stand-in for an iterable reader of timm."""

    split_info = SimpleNamespace()

    def __init__(self, images: list[Image.Image]) -> None:
        self.images = images

    def set_loader_cfg(self, num_workers: int) -> None: ...

    def __iter__(self) -> Iterator[tuple[Image.Image, int]]:
        return ((image, 0) for image in self.images)


def test_streams_give_the_same_pixels(monkeypatch: pytest.MonkeyPatch) -> None:
    """A refused sample is listed with the next sample, or at the end."""
    names = ["rgba.png", "float.tiff", "turned.png", "gray_16.png", "int.tiff"]
    files = FILES | REFUSED
    reader = Reader([Image.open(BytesIO(files[name])) for name in names])
    stream = object.__new__(StreamImages)
    stream.dataset, stream.split, stream.num_classes, stream.shards, stream.table = (
        "wds/x",
        "train",
        1,
        [],
        None,
    )
    monkeypatch.setattr(stream, "reader", lambda *settings: reader)
    found = list(stream.samples())
    for sample, name in zip(found, ("rgba.png", "turned.png", "gray_16.png"), strict=False):
        assert np.array_equal(sample.image, decode(files[name], name)), name
    assert [list(sample.bad) for sample in found] == [
        [],
        ["wds/x train sample 1"],
        [],
        ["wds/x train sample 4"],
    ]
    assert "(mode F), expected 8 or 16" in found[1].bad["wds/x train sample 1"]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_images_are_turned_upright(orientation: int, kind: str) -> None:
    """The result equals Pillow's own function; for orientation 6, the top is at the right."""
    settings = {"WEBP": {"lossless": True}, "JPEG": {"quality": 95}}.get(kind, {})
    encoded = file_of(COLORS, kind, exif=turned(orientation), **settings)
    plain = np.asarray(Image.open(BytesIO(file_of(COLORS, kind, **settings))).convert("RGB"))
    image = decode(encoded, "x")
    found = np.asarray(image)
    assert np.array_equal(found, ImageOps.exif_transpose(image)), "turned again"
    assert np.array_equal(found, ImageOps.exif_transpose(Image.open(BytesIO(encoded))).convert("RGB"))
    by_hand = {
        1: plain,
        2: plain[:, ::-1],
        3: plain[::-1, ::-1],
        4: plain[::-1],
        5: plain.transpose(1, 0, 2),
        6: plain[::-1].transpose(1, 0, 2),
        7: plain[::-1, ::-1].transpose(1, 0, 2),
        8: plain.transpose(1, 0, 2)[::-1],
    }
    assert np.array_equal(found, by_hand[orientation])


@pytest.mark.parametrize("orientation", [3, 5, 6, 7, 8])
def test_a_turned_jpeg_is_decoded_no_larger_than_needed(orientation: int) -> None:
    """Training crops equal those of the same image stored upright, without incomplete border pixels."""
    for size, divisors in (((1200, 904), (4, 8)), ((1203, 901), (1,)), ((1202, 902), (2,))):
        encoded = file_of(COLORS.resize(size, Image.Resampling.BICUBIC), "JPEG", exif=turned(orientation))
        upright = ImageOps.exif_transpose(Image.open(BytesIO(encoded)))
        for augment in ("inception", "shift"):
            image = decode(encoded, "x")
            assert image.size == upright.size
            torch.manual_seed(3)
            found = train_transform(CIFAR, augment)(image)
            assert upright.width / image.width in divisors
            torch.manual_seed(3)
            expected = train_transform(CIFAR, augment)(upright)
            assert (found.float() - expected.float()).abs().mean() < 1


def test_exif_data_that_are_damaged_turn_nothing() -> None:
    for data in (b"Exif\0\0", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff", b"nothing", b""):
        found = decode(file_of(COLORS, "PNG", exif=data), "x")
        assert np.array_equal(found, COLORS)
        segment = b"\xff\xe1" + struct.pack(">H", 2 + len(data)) + data
        damaged = FILES["rgb.jpg"][:2] + segment + FILES["rgb.jpg"][2:]
        assert np.array_equal(decode(damaged, "x"), decode(FILES["rgb.jpg"], "x"))


def test_xmp_data_turn_nothing() -> None:
    """Pillow reads XMP data if there is no EXIF data; browsers do not."""
    image = Image.open(BytesIO(FILES["rgb.png"]))
    image.info["xmp"] = b'<x tiff:Orientation="6"/>'
    assert ImageOps.exif_transpose(image).size == (6, 9)
    assert np.array_equal(as_rgb(Image.open(BytesIO(FILES["rgb.png"])), "x"), as_rgb(image, "x"))


def test_transparency_is_composited_over_white() -> None:
    colors, alpha = np.asarray(COLORS), np.asarray(ALPHA)
    assert np.array_equal(decode(FILES["rgba.png"], "x"), on_white(colors, alpha))
    gray = np.asarray(COLORS.convert("L"))[..., None].repeat(3, -1)
    assert np.array_equal(decode(FILES["gray_alpha.png"], "x"), on_white(gray, alpha))
    palette = Image.open(BytesIO(FILES["palette_alpha.png"]))
    entry = np.asarray(palette)
    shares = np.where(entry == 0, 0, np.where(entry == 1, 128, 255))
    plain = np.asarray(COLORS.quantize(8).convert("RGB"))
    assert np.array_equal(decode(FILES["palette_alpha.png"], "x"), on_white(plain, shares))
    key = np.asarray(decode(FILES["color_key.png"], "x"))
    assert key[0, 0].tolist() == [255] * 3 and np.array_equal(key[1], colors[1])


def test_every_color_and_opacity_is_rounded_as_the_formula_says() -> None:
    """Browsers multiply first and add white afterwards, with the same sum."""
    level, alpha = np.mgrid[:256, :256].astype(np.uint8)
    image = with_alpha(Image.fromarray(level[..., None].repeat(3, -1)), Image.fromarray(alpha))
    found = np.asarray(as_rgb(image, "x"))
    assert np.array_equal(found, on_white(level[..., None].repeat(3, -1), alpha))
    multiplied = np.floor(level * (alpha / 255) + 0.5) + 255 - alpha
    assert np.array_equal(found[..., 0], multiplied)


def test_colors_that_nobody_sees_do_not_decide() -> None:
    """Return three files that look the same."""
    clear = Image.new("L", (9, 6), 0)
    hidden = [with_alpha(Image.new("RGB", (9, 6), color), clear) for color in ("black", "white", "red")]
    for image in hidden:
        assert np.array_equal(decode(file_of(image), "x"), np.full((6, 9, 3), 255))


def test_16_bits_are_divided_by_257() -> None:
    expected = np.round(np.asarray(gray_16()) / 257).astype(np.uint8)
    for name in ("gray_16.png", "gray_16.tiff", "gray_16.pgm"):
        assert np.array_equal(decode(FILES[name], name), expected[..., None].repeat(3, -1)), name
    eight = np.arange(256, dtype=np.uint16).reshape(
        16, 16
    )  # 8-bit values stored as 16-bit values are restored
    assert np.array_equal(as_rgb(Image.fromarray(eight * 257), "x").convert("L"), eight)
    swapped = Image.frombytes("I;16B", (9, 6), np.asarray(gray_16()).astype(">u2").tobytes())
    assert np.array_equal(as_rgb(swapped, "x").convert("L"), expected)
    keyed = with_16_bit_key(gray_16(), 65_535)
    assert np.array_equal(
        decode(keyed, "x"), decode(FILES["gray_16.png"], "x")
    )  # the last value is white in both cases
    assert np.asarray(decode(with_16_bit_key(gray_16(), 0), "x"))[0, 0].tolist() == [255] * 3


def test_of_16_bit_colors_the_upper_8_bits_are_taken() -> None:
    values = RNG.integers(0, 65_536, (6, 9, 3), np.uint16)
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in values)
    header = struct.pack(">IIBBBBB", 9, 6, 16, 2, 0, 0, 0)
    parts = (chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
    assert np.array_equal(decode(b"\x89PNG\r\n\x1a\n" + b"".join(parts), "x"), values >> 8)


def with_16_bit_key(image: Image.Image, value: int) -> bytes:
    """Return a 16-bit PNG with a transparent gray value, which Pillow cannot write."""
    encoded = file_of(image)
    at = encoded.index(b"IDAT") - 4
    return encoded[:at] + chunk(b"tRNS", struct.pack(">H", value)) + encoded[at:]


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("kind", ["zTXt", "tEXt", "iTXt", "iCCP", "after the pixels"])
def test_png_with_much_text(kind: str) -> None:
    """2 MB of text in a PNG is ignored, as are the color profile and comment of a JPEG."""
    text = b"x" * 2_000_000
    packed = zlib.compress(text)
    plain = file_of(COLORS)
    place = plain.index(b"IEND" if kind == "after the pixels" else b"IDAT") - 4
    content = {
        "tEXt": b"note\0" + text,
        "iTXt": b"note\0\1\0\0\0" + packed,
        "iCCP": b"profile\0\0" + packed,
    }.get(kind, b"note\0\0" + packed)
    name = kind.encode() if kind in ("tEXt", "iTXt", "iCCP") else b"zTXt"
    assert np.array_equal(decode(plain[:place] + chunk(name, content) + plain[place:], "x"), COLORS)


def test_no_warning_reaches_the_log() -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for name, encoded in FILES.items():
            decode(encoded, name).load()
            as_rgb(Image.open(BytesIO(encoded)), name)
    assert not caught


def test_the_frame_of_a_given_image() -> None:
    """A file gives its first frame; a PIL image gives the frame selected by the caller."""
    encoded = file_of(COLORS, save_all=True, append_images=[Image.new("RGB", (9, 6), "red")])
    image = Image.open(BytesIO(encoded))
    image.seek(1)
    assert as_rgb(image, "x").getcolors() == [(54, (255, 0, 0))]
    assert np.array_equal(decode(encoded, "x"), COLORS)


def test_a_file_that_is_too_large(tmp_path: Path) -> None:
    with open(tmp_path / "large.bmp", "wb") as file:
        file.truncate(MAX_BYTES + 1)  # a sparse file
    with pytest.raises(
        BadImageError, match=r"large.bmp: got 268,435,457 bytes, expected at most 268,435,456"
    ):
        read_image(tmp_path / "large.bmp")


def test_a_given_image_is_left_as_it_is() -> None:
    image = Image.open(BytesIO(FILES["turned_alpha.png"]))
    before = (image.size, image.mode, dict(image.info))
    as_rgb(image, "x")
    assert (image.size, image.mode, dict(image.info)) == before


def test_a_huge_jpeg_is_decoded_at_a_fraction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Images at four times the limit and more stand for a phone's image of 108 megapixels."""
    smooth = COLORS.resize((400, 300), Image.Resampling.BICUBIC)
    for limit, size in ((120_000, (300, 400)), (60_000, (150, 200)), (8_000, (75, 100)), (2_000, (38, 50))):
        monkeypatch.setenv("IGCV_MAX_PIXELS", str(limit))
        for mode in ("RGB", "L", "CMYK"):
            image = decode(file_of(smooth.convert(mode), "JPEG", exif=turned(6), quality=95), "huge.jpg")
            assert image.size == size
            upright = smooth.convert(mode).convert("RGB").transpose(Image.Transpose.ROTATE_270)
            off = np.asarray(image, int) - np.asarray(upright.resize(size, Image.Resampling.BOX), int)
            assert np.abs(off).mean() < 3
        train_transform(CIFAR, "inception")(image)
    for encoded in (
        file_of(smooth, "JPEG", progressive=True),  # needs memory for all pixels at any size
        file_of(smooth),
        file_of(smooth.resize((1600, 1200)), "JPEG"),  # above the limit at 1/8, too
    ):
        with pytest.raises(BadImageError, match=r"x \d+ pixels, expected at most 2,000, the IGCV_MAX"):
            decode(encoded, "huge")


def test_a_jpeg_of_108_megapixels() -> None:
    """The test reads only the header, because decoding takes a second."""
    jpeg = bytearray(file_of(Image.new("RGB", (16, 16)), "JPEG"))
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", 9_000, 12_000)
    assert decode(bytes(jpeg), "photo.jpg").size == (6_000, 4_500)


def test_the_limit_is_a_setting(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert max_pixels() == MAX_PIXELS
    large = file_of(Image.new("1", (19_000, 9_500)))  # more than twice Pillow's own limit
    with pytest.raises(BadImageError, match="got too many pixels, expected at most 89,478,485, the IGCV_MAX"):
        decode(large, "large.png")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)  # restored after the test
    monkeypatch.setenv("IGCV_MAX_PIXELS", "200_000_000")
    (tmp_path / "a").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "a" / "0.png")
    open_source(f"folder:{tmp_path}", None)
    assert max_pixels() == 200_000_000
    for wrong in ("many", "0", "-5", "1e8"):
        monkeypatch.setenv("IGCV_MAX_PIXELS", wrong)
        with pytest.raises(InputError, match=f"IGCV_MAX_PIXELS: got '{wrong}', expected a whole number"):
            open_source(f"folder:{tmp_path}", None)


def test_a_thin_image_needs_little_memory() -> None:
    """A file of 152 KiB would have ten billion pixels if resized whole for 224 pixels."""
    image = decode(file_of(Image.new("1", (1, 40_000_000))), "thin.png")
    tracemalloc.start()
    assert plain_transform(IMAGENET)(image).shape == (3, 224, 224)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2**24


def test_endings_are_those_of_the_formats_that_are_read() -> None:
    Image.init()
    formats = (*IMAGE_FORMATS, "MPO")  # several JPEGs in one file
    known = {ending for ending, kind in Image.registered_extensions().items() if kind in formats}
    assert set(READ) == known - {".pfm"}  # floating-point pixels
    assert not UNREAD & set(READ)
    page = (Path(__file__).parents[1] / "docs" / "images.md").read_text()
    (row,) = (line for line in page.splitlines() if "| read, by their content" in line)
    assert set(re.findall(r"`(\.\w+)`", row.split("|")[1])) == set(READ)
    assert f"more than {MAX_PIXELS:,} pixels" in page
    assert is_read("A.JPG") and not is_read("jpg") and not is_read("a.heic")


def test_files_of_other_kinds_are_counted(tmp_path: Path) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        for i, kind in enumerate(("jfif", "gif", "pgm", "JPE")):
            format = {"jfif": "JPEG", "JPE": "JPEG", "pgm": "PPM"}.get(kind)
            COLORS.convert("L").save(tmp_path / name / f"{i}.{kind}", format)
    for i in range(40):
        (tmp_path / "cat" / f"{i}.HEIC").touch()
    (tmp_path / "cat" / "notes.txt").touch()
    source = open_source(f"folder:{tmp_path}", None)
    assert source.val is not None and len(source.val) == 8
    assert "40 files skipped: .heic (convert them to JPEG or PNG)" in source.notes
    (tmp_path / "elk").mkdir()
    (tmp_path / "elk" / "a.avif").touch()
    with pytest.raises(InputError, match=r"the class 'elk' has no images, .*\. 1 file skipped: .avif"):
        open_source(f"folder:{tmp_path}", None)
    with pytest.raises(
        BadImageError, match=r"a.heic: .heic images are not supported. Convert the image to JPEG"
    ):
        decode(b"\0\0\0\x18ftypheic", "a.heic")


def test_a_card_says_which_rule_its_network_was_trained_with() -> None:
    assert IMAGENET.to_dict()["pixels"] == PIXELS == "upright on white"
    older = {key: value for key, value in IMAGENET.to_dict().items() if key != "pixels"}
    assert Preprocessing.from_dict(older).pixels == AS_STORED
    assert Preprocessing.from_dict(IMAGENET.to_dict()) == IMAGENET
    for wrong in ("sideways", ["upright on white"], 3):
        with pytest.raises(InputError, match=r"unknown rule for pixels .*update igcv"):
            Preprocessing.from_dict({**older, "pixels": wrong})
