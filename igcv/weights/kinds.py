"""What a file is that was given as weights and is none of igcv's: told by its first bytes, whatever its name."""

from pathlib import Path

from igcv.terminal import quoted

CONVERT = "igcv convert reads those of {}: igcv convert {} OUT.safetensors"
TORCH = "pytorchcv, torchvision and timm"
HEAD = 512  # bytes that tell the kind
# First bytes, bytes soon after them, what such a file is, and whose can be converted; empty: nobody's.
BEGINNINGS: tuple[tuple[bytes, bytes, str, str], ...] = (
    (b"PK\x03\x04", b"/data.pkl", "a PyTorch checkpoint (a pickle in a zip archive)", TORCH),
    (b"PK\x03\x04", b"", "an archive (zip)", ""),
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        b"",
        "a PyTorch checkpoint of an old format (a pickle)",
        TORCH,
    ),
    *((bytes([0x80, protocol]), b"", "a Python pickle", TORCH) for protocol in range(2, 6)),
    (b"\x12\x01\0\0\0\0\0\0", b"", "an MXNet checkpoint", "MXNet"),
    (b"\x89HDF\r\n\x1a\n", b"", "an HDF5 file, as Keras writes them", ""),
    (b"\x93NUMPY", b"", "a NumPy array", ""),
    (b"\x1f\x8b", b"", "a compressed file (gzip)", ""),
    (b"<", b"", "a page (HTML or XML), perhaps of a download that failed", ""),
    (b"version https://git-lfs", b"", "a pointer of Git LFS; fetch the file itself with git lfs pull", ""),
)


def kind_of(path: Path) -> str:
    """Return what a file is that is not safetensors, with the way to go on; empty where it is not known.

    The file is read as bytes only: nothing in it is executed.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head[8:9] == b"{":  # safetensors: the length of the header, then JSON
        return ""
    for begin, inside, what, convertible in BEGINNINGS:
        if head.startswith(begin) and inside in head:
            return f"{what}; {CONVERT.format(convertible, quoted(path))}" if convertible else what
    return ""
