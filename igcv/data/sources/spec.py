"""Spec strings of data sources: syntax, absolute paths, and short names."""

import os
from pathlib import Path
from typing import NamedTuple

from igcv.data.sources.layout import role_of
from igcv.errors import InputError, unknown


class Kind(NamedTuple):
    """A kind of source.

    Attributes:
        syntax: form of a spec of this kind.
        needs: whether the argument after the kind is "nothing" (not allowed), "optional" or "required".
        follows: type of the argument: a "path", "paths" with commas, another "spec", or a "name".
        public: whether the images are a public data set rather than the user's own.
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
SHARDS = "timm/wds/"  # the only timm reader with a folder as its name


def parsed(spec: str) -> tuple[str, str]:
    """Return the kind and the argument of a spec.

    Raises:
        InputError: the kind is unknown, or the argument is missing or not allowed.
    """
    kind, separator, argument = spec.partition("/" if spec.startswith("timm/") else ":")
    if kind not in KINDS:
        known = ", ".join(kind.syntax for kind in KINDS.values())
        raise unknown(
            "data source",
            kind,
            KINDS,
            f"one of: {known}, or an existing folder, searched in {Path.cwd()}",
        )
    syntax, needs, *_ = KINDS[kind]
    if (needs == "nothing" and separator) or (needs == "required" and not argument):
        raise InputError(f"data source: got '{spec}', expected the form {syntax}")
    return kind, argument


def absolute(path: str | Path) -> str:
    """Return the absolute path of `path`, with `~` expanded; a relative path starts at the working folder."""
    return os.path.abspath(os.path.expanduser(path))


def located(spec: str) -> str:
    """Return a spec with absolute paths; a path of an existing folder becomes folder:PATH.

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
    """Return whether two specs stand for the same images, by equal specs or two paths of one folder."""
    first, second = located(first), located(second)
    folders = [
        Path(argument).resolve() for kind, argument in map(_halves, (first, second)) if kind == "folder"
    ]
    return first == second or (len(folders) == 2 and folders[0] == folders[1])


def is_public(spec: str) -> bool:
    """Return whether the images of a source are a public data set."""
    kind, argument = _halves(spec)
    return is_public(argument) if kind == "train" else kind in KINDS and KINDS[kind].public


def source_name(spec: str) -> str:
    """Return the short name of a data set: the last part of its path.

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
    """Return the last part of a path, with the part before it if the last one is only train or val."""
    return "/".join(path.parts[-2:]) if role_of(path.name) and path.parent.name else path.name


def _halves(spec: str) -> tuple[str, str]:
    kind, _, argument = spec.partition(":")
    return kind, argument
