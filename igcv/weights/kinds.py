"""Detection of the format of foreign files by their first bytes."""

from pathlib import Path

from igcv.terminal import quoted

CONVERT = "convert weights of {} with: igcv convert {} OUT.safetensors"
TORCH = "pytorchcv, torchvision and timm"
HEAD = 512  # bytes to read
# First bytes, bytes soon after them, the format, and the projects whose files igcv can convert (empty: none).
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
    (b"\x89HDF\r\n\x1a\n", b"", "an HDF5 file (Keras?)", ""),
    (b"\x93NUMPY", b"", "a NumPy array", ""),
    (b"\x1f\x8b", b"", "a compressed file (gzip)", ""),
    (b"<", b"", "an HTML or XML page, possibly from a failed download", ""),
    (b"version https://git-lfs", b"", "a Git LFS pointer; fetch the file with git lfs pull", ""),
)


def kind_of(path: Path) -> str:
    """Return the format of a foreign file and the fix; empty for safetensors and unknown formats.

    The function only reads bytes and executes nothing in the file.
    """
    with open(path, "rb") as file:
        head = file.read(HEAD)
    if head[8:9] == b"{":  # safetensors: the length of the header, then JSON
        return ""
    for begin, inside, what, convertible in BEGINNINGS:
        if head.startswith(begin) and inside in head:
            return f"{what}; {CONVERT.format(convertible, quoted(path))}" if convertible else what
    return ""
