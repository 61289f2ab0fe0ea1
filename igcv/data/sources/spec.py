"""Specs: one string says where images are. Its grammar, its place on this machine, and its short name."""

import os
from pathlib import Path
from typing import NamedTuple

from igcv.data.sources.layout import role_of
from igcv.errors import InputError, unknown


class Kind(NamedTuple):
    """A kind of source.

    Attributes:
        syntax: how its specs are written.
        needs: whether what follows its name is "nothing", "optional" or "required".
        follows: what that is: a "path", "paths" with commas, another "spec", or a "name".
        public: whether everybody has these images, so that they are nobody's own.
    """

    syntax: str
    needs: str
    follows: str
    public: bool = False


KINDS = {
    "digits": Kind("digits", "nothing", "name", public=True),
    "cifar10": Kind("cifar10[:FOLDER]", "optional", "path", public=True),
    "cifar100": Kind("cifar100[:FOLDER]", "optional", "path", public=True),
    "tinyimagenet": Kind("tinyimagenet:FOLDER", "required", "path", public=True),
    "folder": Kind("folder:FOLDER", "required", "path"),
    "rec": Kind("rec:TRAIN.rec,VAL.rec", "required", "paths"),
    "train": Kind("train:SOURCE", "required", "spec"),
    "timm": Kind("timm/READER/NAME", "required", "name"),
}
SHARDS = "timm/wds/"  # of timm's readers the one that takes a folder


def parsed(spec: str) -> tuple[str, str]:
    """Return the kind of a spec and what follows it.

    Raises:
        InputError: for an unknown kind, or where what follows is missing or too much.
    """
    kind, separator, argument = spec.partition("/" if spec.startswith("timm/") else ":")
    if kind not in KINDS:
        known = ", ".join(kind.syntax for kind in KINDS.values())
        raise unknown(
            "data source",
            kind,
            KINDS,
            f"one of: {known}, or a folder that exists, looked for in {Path.cwd()}",
        )
    syntax, needs, *_ = KINDS[kind]
    if (needs == "nothing" and separator) or (needs == "required" and not argument):
        raise InputError(f"data source '{spec}' does not have the form {syntax}; write it so")
    return kind, argument


def absolute(path: str | Path) -> str:
    """Return a path that means the same from every folder: `~` expanded, relative ones from the working folder."""
    return os.path.abspath(os.path.expanduser(path))


def located(spec: str) -> str:
    """Return a spec whose paths are absolute, so that it means the same from every folder; a folder alone as folder:.

    >>> [
    ...     located(spec)
    ...     for spec in ("digits", "folder:/photos/", "rec:/a.rec,/b/../c.rec", "train:cifar10:/data")
    ... ]
    ['digits', 'folder:/photos', 'rec:/a.rec,/c.rec', 'train:cifar10:/data']
    """
    kind, _, argument = spec.partition(":")
    if spec.startswith(SHARDS) and spec != SHARDS:
        return SHARDS + absolute(spec.removeprefix(SHARDS))
    if kind not in KINDS:
        return f"folder:{absolute(spec)}" if spec and os.path.isdir(absolute(spec)) else spec
    follows = KINDS[kind].follows
    if not argument or follows == "name":
        return spec
    if follows == "spec":
        return f"{kind}:{located(argument)}"
    paths = argument.split(",") if follows == "paths" else [argument]
    return f"{kind}:{','.join(absolute(path) if path else '' for path in paths)}"


def same_source(first: str, second: str) -> bool:
    """Whether two specs name the same images: equal places, or one folder by two paths."""
    first, second = located(first), located(second)
    folders = [
        Path(argument).resolve() for kind, argument in map(_halves, (first, second)) if kind == "folder"
    ]
    return first == second or (len(folders) == 2 and folders[0] == folders[1])


def is_public(spec: str) -> bool:
    """Whether everybody has the images of a source; else they may be somebody's own."""
    kind, argument = _halves(spec)
    return is_public(argument) if kind == "train" else kind in KINDS and KINDS[kind].public


def source_name(spec: str) -> str:
    """Return what a data set is called where its place does not matter: by the last part of its path.

    >>> [
    ...     source_name(spec)
    ...     for spec in ("digits", "cifar10:/mnt/data", "train:cifar10:/mnt/data", "timm/hfds/me/pets")
    ... ]
    ['digits', 'cifar10', 'train:cifar10', 'pets']
    >>> [
    ...     source_name(spec)
    ...     for spec in ("folder:/me/photos/", "folder:/me/photos/train", "rec:a/t.rec,b/v.rec")
    ... ]
    ['photos', 'photos/train', 't.rec, v.rec']
    """
    kind, argument = _halves(spec)
    if kind in ("cifar10", "cifar100"):
        return kind
    if kind == "train":
        return f"train:{source_name(argument)}"
    paths = argument.split(",") if kind == "rec" else [argument or kind]
    return ", ".join(_last(Path(path)) for path in paths if path)


def _last(path: Path) -> str:
    """The last part of a path, with the one before where it says no more than train or val."""
    return "/".join(path.parts[-2:]) if role_of(path.name) and path.parent.name else path.name


def _halves(spec: str) -> tuple[str, str]:
    kind, _, argument = spec.partition(":")
    return kind, argument
