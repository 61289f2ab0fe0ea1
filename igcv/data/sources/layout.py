"""Roles of a data set's folders (training, validation, test), inferred from their names."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from igcv.errors import InputError, some

_NAMES = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validate", "validation", "dev", "eval", "evaluation"),
    "test": ("test", "testing"),
}
_WORDS = {"train": "training images", "val": "validation images", "test": "test images"}
_ROLES = {name: role for role, names in _NAMES.items() for name in names}
_ENDING = re.compile(r"[ _-]?(set|data|images?|split)$")  # as in training_set, val_images
# Folders created by systems: unpacked macOS archives, Synology and QNAP servers, Windows, file systems, Python.
# Folders that begin with a dot (.ipynb_checkpoints, .Trash-1000, .AppleDouble) are hidden anyway.
_SYSTEM = {
    *("__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "~snapshot"),
    *("$recycle.bin", "recycler", "system volume information", "lost+found", "__pycache__"),
}


class Inside(NamedTuple):
    """Content of a folder: names of its subfolders, which may be classes, and number of images directly in it."""

    folders: Sequence[str]
    loose: int


class Layout(NamedTuple):
    """The folder of each part, None for a missing part, and notes for the user."""

    train: Path | None
    val: Path | None
    test: Path | None
    notes: tuple[str, ...]


def is_shown(name: str) -> bool:
    """Return whether a file or folder is the user's own, neither hidden nor created by a system."""
    return name[0] != "." and name.casefold() not in _SYSTEM


def role_of(name: str) -> str | None:
    """Return the part that a folder name stands for, ignoring case; None for other names.

    >>> [role_of(name) for name in ("Train", "valid ", "training_set", "TEST", "cat", "trainer")]
    ['train', 'val', 'train', 'test', None, None]
    """
    plain = name.strip().casefold()
    return _ROLES.get(plain) or _ROLES.get(_ENDING.sub("", plain))


def layout_of(root: Path, folders: Mapping[str, Inside]) -> Layout | None:
    """Return the folders of a data set that are its parts; None if the folders are its classes.

    A folder is a part if its name says so and it has class folders. The test images are used for validation only if no
    folder, not even an empty one, has a validation name.

    Args:
        root: the data set.
        folders: content of each folder of the data set.

    Raises:
        InputError: two folders stand for one part, a part has images and no class folders, or a part is next to
            classes.
    """
    named = {name: role for name in folders if (role := role_of(name))}
    others = [name for name in folders if name not in named and any(folders[name])]
    filled = {
        role: [name for name in named if named[name] == role and folders[name].folders] for role in _NAMES
    }
    if not any(filled.values()):
        if others or not any(folders[name].loose for name in named):
            return None
        raise _without_classes(root, next(name for name in named if folders[name].loose), folders)
    if len(named) == 1 and others:
        _refuse_mixture(root, next(iter(named)), others)
    for role, names in filled.items():
        if len(names) > 1:
            raise InputError(
                f"{root}: {' and '.join(f'{name}/' for name in names)} are both named as {_WORDS[role]}, expected one "
                "folder. Move or rename the others"
            )
        flat = [name for name in named if named[name] == role and folders[name].loose]
        if role != "test" and not names and flat:
            raise _without_classes(root, flat[0], folders)
    train, val, test = (next(iter(filled[role]), None) for role in _NAMES)
    return _described(root, folders, train, val, test)


def _described(
    root: Path, folders: Mapping[str, Inside], train: str | None, val: str | None, test: str | None
) -> Layout:
    """Return the layout with its notes."""
    notes = []
    if test is not None and not any(role_of(name) == "val" for name in folders):
        val, test = test, None
        if train is not None:
            notes.append(
                f"no val/ folder: {val}/ is used for validation, so no images are left for the final accuracy"
            )
    uses = {train: "training", val: "validation", test: "final accuracy"}
    said = ", ".join(f"{name}/ for {use}" for name, use in uses.items() if name)
    left = [f"{name}/{' (no class folders)' * bool(role_of(name))}" for name in folders if name not in uses]
    notes.insert(0, f"{root.name}: {said}" + (f"; not used: {', '.join(left)}" if left else ""))
    trained, validated, tested = (root / name if name else None for name in (train, val, test))
    return Layout(trained, validated, tested, tuple(notes))


def _refuse_mixture(root: Path, part: str, others: Sequence[str]) -> None:
    """Raise InputError for a folder that may be a part, next to folders that may be classes."""
    shown = some((f"{name}/" for name in others), 3)
    raise InputError(
        f"{root}: {part}/ has class folders like a part, but is next to {shown} like a class, expected only parts or "
        f"only classes. Give folder:{root / part} to use it alone, or move its images directly into it if it is a class"
    )


def _without_classes(root: Path, part: str, folders: Mapping[str, Inside]) -> InputError:
    return InputError(
        f"{root / part}: has {folders[part].loose:,} images and no class folders, expected a folder of images for each "
        f"class in it. Move the images into {part}/CLASS/, or give their labels as a list with --split"
    )
