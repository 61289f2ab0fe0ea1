"""Source with one folder of images per class."""

import os
from collections import Counter
from collections.abc import Sequence
from itertools import chain
from pathlib import Path

from igcv.data.formats import READ, is_read, skipped_line, unread
from igcv.data.images import FileImages
from igcv.data.sources.layout import Inside, is_shown, layout_of, role_of
from igcv.data.sources.listed import SplitList, normal
from igcv.data.sources.parts import Parts, Request, natural
from igcv.errors import InputError, some


def open_folder(request: Request) -> Parts:
    root = Path(request.argument)
    if isinstance(request.split, SplitList) and request.split.whole:
        return _listed(root, request.split)
    levels = _unwrapped(root)
    root = levels[-1]
    parts, notes = _parts(root)
    if len(levels) > 1:
        notes.insert(0, f"the class folders are in {root}")
    loose = sum(_inside(folder).loose for folder in dict.fromkeys(chain(levels, *parts)))
    if loose:
        notes.append(f"{loose:,} images lie outside the class folders and are left out")
    names, missing = _common_classes(root, [part[-1] for part in parts if part])
    counts: Counter[str] = Counter()
    train, val, test = (_folder_images(part[-1], root, names, counts) if part else None for part in parts)
    skipped = skipped_line(counts)
    return Parts(train, val, names, test, (*notes, *missing, *filter(None, [skipped])))


def _parts(root: Path) -> tuple[Sequence[list[Path]], list[str]]:
    """Return the folders of training, validation and test images, with notes.

    Returns:
        For each part, the folders from `_unwrapped`, empty for a missing part; and notes for the user.
    """
    folders = {folder.name: folder for folder in _folders(root)}
    named = [name for name in folders if role_of(name)]
    layout = layout_of(root, {name: _inside(folder) for name, folder in folders.items()}) if named else None
    if layout is None:
        return ([root], [], []), [f"{name}/ is read as a class: it has no class folders" for name in named]
    parts = [_unwrapped(part, role_of(part.name)) if part else [] for part in layout[:3]]
    return parts, list(layout.notes)


def _unwrapped(root: Path, role: str | None = None) -> list[Path]:
    """Return a folder and its nested single subfolders, as left by unpacking an archive.

    Args:
        root: the folder.
        role: required role of the subfolders' names (see `role_of`); None: names without a role.
    """
    levels = [root]
    while (
        len(inside := _folders(levels[-1])) == 1 and role_of(inside[0].name) == role and _folders(inside[0])
    ):
        levels.append(inside[0])
    return levels


def _common_classes(root: Path, parts: Sequence[Path]) -> tuple[list[str], list[str]]:
    """Return the class names of the first part, with notes about classes that other parts lack."""
    first, *others = ([folder.name for folder in _class_folders(part)] for part in parts)
    notes = []
    for part, names in zip(parts[1:], others, strict=True):
        known, found = (set(map(normal, part)) for part in (first, names))
        here, there = parts[0].relative_to(root), part.relative_to(root)
        if found - known:
            odd = [f"'{name}'" for name in sorted(known ^ found, key=natural)]
            raise InputError(
                f"{root}: {here}/ and {there}/ have different class folders, expected the same in both. Only in one: "
                f"{some(odd)} ({len(odd)} in all)"
            )
        if missing := sorted(known - found, key=natural):
            notes.append(f"{there}/ has no images of the classes: {some(missing)}")
    return first, notes


def _listed(root: Path, rule: SplitList) -> Parts:
    """Open the images in a list, with the labels of the list instead of the folders."""
    files = {normal(Path(file).relative_to(root).as_posix()): file for file in image_files(root)}
    rule.check_there(files.keys(), str(root))
    names = sorted({row.label for row in rule.images}, key=natural)
    numbers = {name: number for number, name in enumerate(names)}
    rows = [row for row in rule.images if row.path in files]
    images = FileImages([files[row.path] for row in rows], [numbers[row.label] for row in rows], root)
    left_out = len(files) - len(rows)
    notes = (f"{left_out:,} images of {root} are not in {rule.file} and are left out",) if left_out else ()
    return Parts(images, None, names, notes=notes)


def _folder_images(root: Path, source: Path, names: Sequence[str], counts: Counter[str]) -> FileImages:
    """Return the images of a part, and add its unsupported image files to `counts`, by extension."""
    files, labels = [], []
    counts += unread(_shown(root)[1])
    numbers = {normal(name): number for number, name in enumerate(names)}
    for folder in _class_folders(root):
        inside = _files(folder)
        found, others = list(filter(is_read, inside)), unread(inside)
        counts += others
        if not found:
            skipped = skipped_line(others)
            raise InputError(
                f"{folder}: the class '{folder.name}' has no images, expected files ending in "
                f"{', '.join(READ)}. {skipped or 'Add images or remove the folder'}"
            )
        files += found
        labels += [numbers[normal(folder.name)]] * len(found)
    return FileImages(files, labels, source)


def _class_folders(root: Path) -> list[Path]:
    folders = _folders(root)
    if not folders:
        raise InputError(
            f"{root}: has {len(image_files(root))} images and no class folders, expected a "
            "folder of images for each class. Move the images into folders named after their classes"
        )
    return folders


def _folders(root: Path) -> list[Path]:
    """Return the user's folders in `root`, in class order."""
    return [root / name for name in _inside(root).folders]


def _inside(folder: Path) -> Inside:
    """Return the folders directly in a folder, in class order, and the number of images there."""
    folders, files = _shown(folder)
    return Inside(sorted(folders, key=natural), sum(map(is_read, files)))


def _shown(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of the user's folders and files directly in a folder."""
    try:
        with os.scandir(folder) as entries:
            shown = [(entry.name, entry.is_dir()) for entry in entries if is_shown(entry.name)]
    except OSError as error:
        raise _unreadable(error) from None
    return [name for name, is_folder in shown if is_folder], [n for n, is_folder in shown if not is_folder]


def image_files(folder: Path) -> list[str]:
    """Return the supported image files in `folder` and its subfolders, sorted by path."""
    return list(filter(is_read, _files(folder)))


def unread_images(folder: Path) -> Counter[str]:
    """Count the unsupported image files in `folder` and its subfolders, by extension."""
    return unread(_files(folder))


def _files(folder: Path) -> list[str]:
    """Return the files in `folder` and its subfolders, sorted by path; a folder reached several times counts once.

    Hidden files and folders, and those created by a system, are left out.
    """
    found, seen = [], set()
    try:
        for place, folders, names in os.walk(folder, onerror=_stop, followlinks=True):
            status = os.stat(place)
            if (status.st_dev, status.st_ino) in seen:
                folders.clear()
                continue
            seen.add((status.st_dev, status.st_ino))
            folders[:] = sorted(filter(is_shown, folders))
            found += [os.path.join(place, name) for name in filter(is_shown, names)]
    except OSError as error:
        raise _unreadable(error) from None
    return sorted(found)


def _stop(error: OSError) -> None:
    raise error


def _unreadable(error: OSError) -> InputError:
    return InputError(
        f"{error.filename}: cannot be read as a folder ({error.strerror}), expected one folder "
        "per class in it. Check the path and its permissions"
    )
