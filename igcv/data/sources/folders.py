"""One folder of images per class."""

import os
from pathlib import Path

from igcv.data.images import FileImages
from igcv.data.sources.parts import Parts, Request, with_validation
from igcv.errors import InputError

_EXTENSIONS = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")
_TRAIN_FOLDERS = ("train",)
_VAL_FOLDERS = ("val", "validation", "test")  # the first that is there


def open_folder(request: Request) -> Parts:
    root = Path(request.argument)
    inside = {folder.name: folder for folder in _folders(root)}
    train, val = (
        next((inside[name] for name in known if name in inside), None)
        for known in (_TRAIN_FOLDERS, _VAL_FOLDERS)
    )
    if not any(part and _folders(part) for part in (train, val)):  # then they are classes that are called so
        train, val = root, None
    parts = [part for part in (train, val) if part]
    classes = [[folder.name for folder in _class_folders(part)] for part in parts]
    if classes[0] != classes[-1]:
        odd = sorted(set(classes[0]) ^ set(classes[-1]))
        raise InputError(
            f"{root}: {parts[0].name}/ and {parts[-1].name}/ have different class folders, expected "
            f"the same in both; only in one: {', '.join(odd[:5])} ({len(odd)} in all)"
        )
    train_images, val_images = (_folder_images(part) if part else None for part in (train, val))
    return *with_validation(train_images, val_images, request.seed), classes[0]


def _folder_images(root: Path) -> FileImages:
    files, labels = [], []
    for label, folder in enumerate(_class_folders(root)):
        found = image_files(folder)
        if not found:
            raise InputError(
                f"{folder}: the class '{folder.name}' has no images, expected files ending in "
                f"{', '.join(_EXTENSIONS)}; add some or remove the folder"
            )
        files += found
        labels += [label] * len(found)
    return FileImages(files, labels)


def _class_folders(root: Path) -> list[Path]:
    folders = _folders(root)
    if not folders:
        raise InputError(
            f"{root}: has {len(image_files(root))} images and no class folders, expected a "
            "folder of images for each class; move the images into folders named by class"
        )
    return folders


def _folders(root: Path) -> list[Path]:
    """The folders in `root`, sorted by name; hidden ones are an editor's or the system's."""
    try:
        return sorted(entry for entry in root.iterdir() if entry.is_dir() and entry.name[0] != ".")
    except OSError as error:
        raise _unreadable(error) from None


def image_files(folder: Path) -> list[str]:
    """The image files in `folder` and below, sorted by path; a folder that links lead back to counts once."""
    found, seen = [], set()
    try:
        for place, folders, names in os.walk(folder, onerror=_stop, followlinks=True):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders.sort()
            found += [os.path.join(place, name) for name in names if name.lower().endswith(_EXTENSIONS)]
    except OSError as error:
        raise _unreadable(error) from None
    return sorted(path for path in found if os.path.basename(path)[0] != ".")


def _stop(error: OSError) -> None:
    raise error


def _unreadable(error: OSError) -> InputError:
    return InputError(
        f"{error.filename}: cannot be read as a folder ({error.strerror}), expected a folder "
        "of class folders; check the path and its permissions"
    )
