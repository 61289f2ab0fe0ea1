"""Images as the input of an exported network, prepared like those of `igcv predict`. Needs NumPy and Pillow only."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image, ImageOps


def pixels_of(path: str, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Return an 8-bit image as pixels, uint8 (1, S, S, 3): upright, on white, resized and cropped.

    Args:
        path: image file.
        preprocessing: the entry "preprocessing" of the card in an exported file.
    """
    image = ImageOps.exif_transpose(Image.open(path)).convert("RGBA")  # upright
    image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image).convert("RGB")
    side, short = preprocessing["input_size"], round(preprocessing["input_size"] / preprocessing["crop"])
    size = [
        int(short * length / min(image.size)) for length in image.size
    ]  # the shorter side becomes `short`
    image = image.resize(size, Image.Resampling[preprocessing["interpolation"].upper()])
    left, top = (round((length - side) / 2) for length in size)
    return np.asarray(image.crop((left, top, left + side, top + side)))[None]


def normalized(pixels: np.ndarray, preprocessing: Mapping[str, Any]) -> np.ndarray:
    """Return pixels as the input of a file without preprocessing: (N, S, S, 3) -> float32 (N, 3, S, S)."""
    mean, std = (np.array(preprocessing[name], np.float32) for name in ("mean", "std"))
    return ((pixels / np.float32(255) - mean) / std).transpose(0, 3, 1, 2)
