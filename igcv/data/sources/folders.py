"""One folder of images per class."""

import os
from collections import Counter
from pathlib import Path

from igcv.data.formats import READ, is_read, skipped_line, unread
from igcv.data.images import FileImages
from igcv.data.sources.listed import SplitList, normal
from igcv.data.sources.parts import Parts, Request
from igcv.errors import InputError

_TRAIN_FOLDERS = ("train",)
_VAL_FOLDERS = ("val", "validation", "test")  # the first that is there
_TEST_FOLDER = "test"


def open_folder(request: Request) -> Parts:
    root = Path(request.argument)
    if isinstance(request.split, SplitList) and request.split.whole:
        return _listed(root, request.split)
    inside = {folder.name: folder for folder in _folders(root)}
    train, val = (
        next((inside[name] for name in known if name in inside), None)
        for known in (_TRAIN_FOLDERS, _VAL_FOLDERS)
    )
    if not any(part and _folders(part) for part in (train, val)):  # then they are classes that are called so
        train, val, inside = root, None, {}
    test, notes = _test_folder(inside, val)
    parts = [part for part in (train, val, test) if part]
    classes = [[folder.name for folder in _class_folders(part)] for part in parts]
    for part, other in zip(parts, classes, strict=True):
        if odd := sorted(set(classes[0]) ^ set(other)):
            raise InputError(
                f"{root}: {parts[0].name}/ and {part.name}/ have different class folders, expected "
                f"the same in both; only in one: {', '.join(odd[:5])} ({len(odd)} in all)"
            )
    images = (_folder_images(part, root) if part else None for part in (train, val, test))
    train_images, val_images, test_images = images
    skipped = skipped_line(sum(map(unread_images, parts), Counter()))
    return Parts(train_images, val_images, classes[0], test_images, (*notes, *filter(None, [skipped])))


def _test_folder(inside: dict[str, Path], val: Path | None) -> tuple[Path | None, tuple[str, ...]]:
    """The folder of the final accuracy, if it is not the one that validates, and what to say about it."""
    test = inside.get(_TEST_FOLDER)
    if test is None:
        return None, ()
    if test == val:
        note = "no val/ folder: the images of test/ validate, so that none are left for a final accuracy"
        return None, (note,) if _TRAIN_FOLDERS[0] in inside else ()
    if not _folders(test):
        return None, (f"{test} has no class folders and is left out",)
    return test, ()


def _listed(root: Path, rule: SplitList) -> Parts:
    """The images that a list names, with its labels; folders mean nothing."""
    files = {normal(Path(file).relative_to(root).as_posix()): file for file in image_files(root)}
    rule.check_there(files.keys(), str(root))
    names = sorted({row.label for row in rule.images})
    numbers = {name: number for number, name in enumerate(names)}
    rows = [row for row in rule.images if row.path in files]
    images = FileImages([files[row.path] for row in rows], [numbers[row.label] for row in rows], root)
    left_out = len(files) - len(rows)
    notes = (f"{left_out:,} images of {root} are not in {rule.file} and are left out",) if left_out else ()
    return Parts(images, None, names, notes=notes)


def _folder_images(root: Path, source: Path) -> FileImages:
    files, labels = [], []
    for label, folder in enumerate(_class_folders(root)):
        found = image_files(folder)
        if not found:
            skipped = skipped_line(unread_images(folder))
            raise InputError(
                f"{folder}: the class '{folder.name}' has no images, expected files ending in "
                f"{', '.join(READ)}; {skipped or 'add some or remove the folder'}"
            )
        files += found
        labels += [label] * len(found)
    return FileImages(files, labels, source)


def _class_folders(root: Path) -> list[Path]:
    folders = _folders(root)
    if not folders:
        raise InputError(
            f"{root}: has {len(image_files(root))} images and no class folders, expected a "
            "folder of images for each class; move the images into folders named by class"
        )
    return folders


def _folders(root: Path) -> list[Path]:
    """The folders in `root` that are not hidden, sorted by name."""
    try:
        return sorted(entry for entry in root.iterdir() if entry.is_dir() and _is_shown(entry.name))
    except OSError as error:
        raise _unreadable(error) from None


def image_files(folder: Path) -> list[str]:
    """The image files in `folder` and below, sorted by path."""
    return list(filter(is_read, _files(folder)))


def unread_images(folder: Path) -> Counter[str]:
    """How many image files in `folder` and below are of kinds that are not read, by their endings."""
    return unread(_files(folder))


def _files(folder: Path) -> list[str]:
    """The files in `folder` and below, sorted by path; a folder that links lead back to counts once.

    Hidden files and folders are left out: they are an editor's or the system's.
    """
    found, seen = [], set()
    try:
        for place, folders, names in os.walk(folder, onerror=_stop, followlinks=True):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(filter(_is_shown, folders))
            found += [os.path.join(place, name) for name in filter(_is_shown, names)]
    except OSError as error:
        raise _unreadable(error) from None
    return sorted(found)


def _is_shown(name: str) -> bool:
    return name[0] != "."


def _stop(error: OSError) -> None:
    raise error


def _unreadable(error: OSError) -> InputError:
    return InputError(
        f"{error.filename}: cannot be read as a folder ({error.strerror}), expected a folder "
        "of class folders; check the path and its permissions"
    )
