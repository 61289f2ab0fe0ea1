"""Source of Tiny-ImageNet-200 in its published form."""

from pathlib import Path

from igcv.data.images import FileImages
from igcv.data.sources.folders import image_files
from igcv.data.sources.parts import Parts, Request
from igcv.errors import InputError
from igcv.reading import read_text


def open_tiny_imagenet(request: Request) -> Parts:
    """Open Tiny-ImageNet-200 as published: train/WNID/images, val/images with val_annotations.txt, words.txt."""
    root = Path(request.argument)
    wnids = sorted(row[0] for row in _rows(root / "wnids.txt", 1))
    labels = {wnid: label for label, wnid in enumerate(wnids)}
    names = {wnid: words.split(",")[0].strip() for wnid, words in _rows(root / "words.txt", 2)}
    train = [(file, wnid) for wnid in wnids for file in image_files(root / "train" / wnid)]
    annotated = _rows(root / "val" / "val_annotations.txt", 2)
    val = [(str(root / "val" / "images" / file), wnid) for file, wnid in annotated]
    unknown_ids = {wnid for _, wnid in val} - labels.keys() | set(wnids) - names.keys()
    if unknown_ids or not train or not val:
        raise InputError(
            f"{root}: found {len(train)} training and {len(val)} validation images and {len(unknown_ids)} unknown "
            "class identifiers, expected tiny-imagenet-200 as published. Unpack the archive again"
        )
    first, second = (
        FileImages([file for file, _ in part], [labels[wnid] for _, wnid in part], root)
        for part in (train, val)
    )
    return Parts(first, second, [names[wnid] for wnid in wnids])


def _rows(file: Path, columns: int) -> list[list[str]]:
    """Return the first columns of a file with tab-separated columns."""
    text = read_text(file, "a file of tiny-imagenet-200, given as tinyimagenet:FOLDER")
    rows = [line.split("\t")[:columns] for line in text.splitlines() if line]
    if short := next((row for row in rows if len(row) < columns), None):
        raise InputError(f"{file}: got the line '{short[0]}', expected {columns} tab-separated columns")
    return rows
