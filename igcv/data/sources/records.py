"""Source of MXNet RecordIO files."""

from pathlib import Path

import numpy as np

from igcv.data.images import Images, RecordImages, SubsetImages
from igcv.data.recordio import UNLABELLED
from igcv.data.sources.parts import Parts, Request, names_beside, names_by_number
from igcv.data.sources.spec import KINDS
from igcv.errors import InputError


def open_records(request: Request) -> Parts:
    paths = request.argument.split(",")
    if len(paths) > 2 or not any(paths):
        raise InputError(
            f"data source 'rec:{request.argument}': got {sum(map(bool, paths))} files, expected {KINDS['rec'].syntax}"
        )
    notes: list[str] = []
    train, val = (_labeled(path, notes) if path else None for path in (*paths, "")[:2])
    names = names_beside(Path(paths[0] or paths[1]))
    numbers = names or names_by_number(train, val)
    return Parts(train, val, numbers, notes=tuple(notes), named=bool(names))


def _labeled(path: str, notes: list[str]) -> Images:
    """Return the labeled images of a file, and add a line about other records to `notes`."""
    images = RecordImages(path)
    left = np.flatnonzero(images.labels == UNLABELLED)
    if not len(left):
        return images
    if len(left) == len(images):
        raise InputError(
            f"{path}: none of its {len(images):,} records is an image with a label, expected class numbers from 0 as "
            "labels. Pack the file again with labels"
        )
    tables = sum(not len(images.records[int(i)][1]) for i in left)
    counts = {
        "records without an image (header, tables)": tables,
        "images without a label": len(left) - tables,
    }
    said = " and ".join(f"{count:,} {what}" for what, count in counts.items() if count)
    notes.append(f"{Path(path).name}: {said} are left out")
    return SubsetImages(images, np.flatnonzero(images.labels != UNLABELLED))
