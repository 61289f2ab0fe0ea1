"""What a file is that was given as weights and is none of igcv's: told by its first bytes, whatever its name."""

import zipfile
from pathlib import Path

from igcv.terminal import quoted

CONVERT = "igcv convert reads those of {}: igcv convert {} OUT.safetensors"
TORCH = "pytorchcv, torchvision and timm"
# First bytes, what a file is that begins with them, and whose of them can be converted; empty: nobody's.
BEGINNINGS: tuple[tuple[bytes, str, str], ...] = (
    (b"PK\x03\x04", "an archive (zip)", ""),
    (
        b"\x80\x02\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19.",
        "a PyTorch checkpoint of an old format (a pickle)",
        TORCH,
    ),
    (b"\x80", "a Python pickle", TORCH),
    (b"\x12\x01\0\0\0\0\0\0", "an MXNet checkpoint", "MXNet"),
    (b"\x89HDF\r\n\x1a\n", "an HDF5 file, as Keras writes them", ""),
    (b"\x08", "an ONNX file", ""),
    (b"\x93NUMPY", "a NumPy array", ""),
    (b"\x1f\x8b", "a compressed file (gzip)", ""),
    (b"<", "a page (HTML or XML), perhaps of a download that failed", ""),
    (b"version https://git-lfs", "a pointer of Git LFS; fetch the file itself with git lfs pull", ""),
)


def kind_of(path: Path) -> str:
    """Return what a file is that is not safetensors, with the way to go on; empty where it is not known.

    The file is read as bytes only: nothing in it is executed.
    """
    with open(path, "rb") as file:
        head = file.read(64)
    if head[8:9] == b"{":  # safetensors: the length of the header, then JSON
        return ""
    for begin, what, convertible in BEGINNINGS:
        if head.startswith(begin):
            if begin.startswith(b"PK") and _is_torch(path):
                what, convertible = "a PyTorch checkpoint (a pickle in a zip archive)", TORCH
            hint = CONVERT.format(convertible, quoted(path)) if convertible else ""
            return f"{what}; {hint}" if hint else what
    return ""


def _is_torch(path: Path) -> bool:
    """Whether a zip archive is one that torch.save wrote."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(name.rpartition("/")[2] == "data.pkl" for name in archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError):
        return False
