"""One folder of images per class."""

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
    """The folders of training, validation and test images as of `_unwrapped`, none where a part is not there.

    Returns:
        These, and what to say about them, a line each.
    """
    folders = {folder.name: folder for folder in _folders(root)}
    named = [name for name in folders if role_of(name)]
    layout = layout_of(root, {name: _inside(folder) for name, folder in folders.items()}) if named else None
    if layout is None:
        return ([root], [], []), [f"{name}/ is read as a class: it has no class folders" for name in named]
    parts = [_unwrapped(part, role_of(part.name)) if part else [] for part in layout[:3]]
    return parts, list(layout.notes)


def _unwrapped(root: Path, role: str | None = None) -> list[Path]:
    """A folder, and those below it that are alone in theirs, as unpacking an archive leaves them.

    Args:
        root: the folder.
        role: what the names of the others stand for (see `role_of`): that of a part, else nothing.
    """
    levels = [root]
    while (
        len(inside := _folders(levels[-1])) == 1 and role_of(inside[0].name) == role and _folders(inside[0])
    ):
        levels.append(inside[0])
    return levels


def _common_classes(root: Path, parts: Sequence[Path]) -> tuple[list[str], list[str]]:
    """The classes of all parts, by the first of them, and lines on those that other parts do not have."""
    first, *others = ([folder.name for folder in _class_folders(part)] for part in parts)
    notes = []
    for part, names in zip(parts[1:], others, strict=True):
        known, found = (set(map(normal, part)) for part in (first, names))
        here, there = parts[0].relative_to(root), part.relative_to(root)
        if found - known:
            odd = [f"'{name}'" for name in sorted(known ^ found, key=natural)]
            raise InputError(
                f"{root}: {here}/ and {there}/ have different class folders, expected the same in both; only in one: "
                f"{some(odd)} ({len(odd)} in all)"
            )
        if missing := sorted(known - found, key=natural):
            notes.append(f"{there}/ has no images of the classes: {some(missing)}")
    return first, notes


def _listed(root: Path, rule: SplitList) -> Parts:
    """The images that a list names, with its labels; folders mean nothing."""
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
    """The images of a part; those that are not read are added to `counts`, by their endings."""
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
                f"{', '.join(READ)}; {skipped or 'add some or remove the folder'}"
            )
        files += found
        labels += [numbers[normal(folder.name)]] * len(found)
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
    """The folders in `root` that are the user's own, in the order of their classes."""
    return [root / name for name in _inside(root).folders]


def _inside(folder: Path) -> Inside:
    """What is right in a folder: folders in the order of their classes, and how many images."""
    folders, files = _shown(folder)
    return Inside(sorted(folders, key=natural), sum(map(is_read, files)))


def _shown(folder: Path) -> tuple[list[str], list[str]]:
    """The names of the folders and of the files right in a folder that are the user's own."""
    try:
        with os.scandir(folder) as entries:
            shown = [(entry.name, entry.is_dir()) for entry in entries if is_shown(entry.name)]
    except OSError as error:
        raise _unreadable(error) from None
    return [name for name, is_folder in shown if is_folder], [n for n, is_folder in shown if not is_folder]


def image_files(folder: Path) -> list[str]:
    """The image files in `folder` and below, sorted by path."""
    return list(filter(is_read, _files(folder)))


def unread_images(folder: Path) -> Counter[str]:
    """How many image files in `folder` and below are of kinds that are not read, by their endings."""
    return unread(_files(folder))


def _files(folder: Path) -> list[str]:
    """The files in `folder` and below, sorted by path; a folder that links lead back to counts once.

    Files and folders that are hidden or made by a system are left out.
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
        f"{error.filename}: cannot be read as a folder ({error.strerror}), expected a folder "
        "of class folders; check the path and its permissions"
    )
