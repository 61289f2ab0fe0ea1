"""Data sets of other libraries: scikit-learn's digits and torchvision's CIFAR."""

from pathlib import Path

import numpy as np

from igcv.data.images import ArrayImages
from igcv.data.sources.parts import Parts, Request, by_position
from igcv.errors import InputError
from igcv.extras import required


def open_digits(request: Request) -> Parts:
    required("sklearn", "digits", "demo")
    from sklearn.datasets import load_digits  # slow to import, needed here only

    digits = load_digits()
    gray = np.round(digits.images * (255 / 16)).astype(np.uint8)  # (1797, 8, 8), 0..16 -> 0..255
    images = ArrayImages(np.repeat(gray[..., None], 3, axis=-1), digits.target, request.kind)
    return Parts(*by_position(images, seed=0), [str(digit) for digit in range(10)])


def open_cifar(request: Request) -> Parts:
    import torchvision.datasets  # slow to import, needed here only

    dataset = getattr(torchvision.datasets, request.kind.upper())
    root = Path(request.argument or request.root).absolute()
    try:
        try:
            train, val = (dataset(root, train=part) for part in (True, False))
        except RuntimeError:  # torchvision's error for missing or damaged files
            if request.argument or not request.download:
                raise
            train, val = (dataset(root, train=part, download=True) for part in (True, False))
    except (RuntimeError, OSError) as error:
        reason = error if isinstance(error, OSError) else "files are missing or damaged"
        raise InputError(
            f"{request.kind}: no complete data set in {root / dataset.base_folder} ({reason}). "
            f"Unpack {dataset.url} there, or give its folder: {request.kind}:FOLDER"
        ) from None
    first, second = (ArrayImages(half.data, half.targets, request.kind) for half in (train, val))
    return Parts(first, second, train.classes)
