"""Small data set of real images in files."""

from pathlib import Path

from PIL import Image
from sklearn.datasets import load_digits


def write_digits(root: Path, train: int = 12) -> Path:
    """Write handwritten zeros and ones as images of 16 x 16 pixels, one folder per class.

    Args:
        root: folder for `train/` and `val/`.
        train: training images per class; 5 more per class are for validation.

    Returns:
        `root`.
    """
    digits = load_digits()
    for label, name in enumerate(("one", "zero")):
        images = digits.images[digits.target == 1 - label][: train + 5]
        for i, pixels in enumerate(images):
            folder = root / ("train" if i < train else "val") / name
            folder.mkdir(parents=True, exist_ok=True)
            Image.fromarray((pixels * 15.9).astype("uint8")).resize((16, 16)).save(folder / f"{i}.png")
    return root
