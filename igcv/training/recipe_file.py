"""Recipe files and key=value settings; precedence: key=value, TOML file, defaults."""

import os
import tomllib
import types
import typing
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from igcv.data.sources.spec import absolute, located
from igcv.errors import InputError, unknown
from igcv.reading import read_text
from igcv.training.recipe import NO_START, Recipe
from igcv.training.usual_names import our_name

_TYPES = typing.get_type_hints(Recipe)


def _start(text: str) -> str:
    """Return init_from with a path made absolute; other text is the name of released weights."""
    is_path = os.path.exists(os.path.expanduser(text)) or "/" in text or text.endswith(".safetensors")
    return absolute(text) if text != NO_START and is_path else text


# Conversions of the settings that name files and folders: relative paths start at the working folder.
PLACES = {"data": located, "split": lambda text: absolute(text) if text else "", "init_from": _start}


def load_recipe(path: Path | None, overrides: Iterable[str] = (), /, **given: Any) -> Recipe:
    """Return a recipe from a TOML file and changes.

    Later sources override earlier ones: defaults, TOML file, `key=value` strings, keyword arguments that are not None.

    Raises:
        InputError: the file is unreadable, a key is unknown, or a value has the wrong type.
    """
    values = (read_toml(path) if path else {}) | parse_settings(overrides)
    values |= {key: value for key, value in given.items() if value is not None}
    return replace(Recipe(), **{key: convert(key, value) for key, value in values.items()})


def parse_settings(texts: Iterable[str]) -> dict[str, Any]:
    """Parse `key=value` strings; return the values by key.

    Raises:
        InputError: a string has no "=", or its key is unknown.
    """
    values = {}
    for text in texts:
        key, equals, value = text.partition("=")
        if not equals:
            raise InputError(
                f"got '{text}', expected a recipe file (.toml) or a setting key=value, e.g. epochs=30"
            )
        values[key] = _parse(key, value)
    return values


def find_recipe(name: str) -> Path:
    """Return the path of a recipe file: `name` itself, or a recipe of that file name that comes with igcv."""
    package = Path(__file__).parents[1]
    given = Path(os.path.expanduser(name))
    places = (given, package / "recipes" / given.name, package.parent / "recipes" / given.name)
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        if name in _TYPES:
            raise InputError(f"got '{name}', expected a recipe file (.toml) or a setting, {name}=VALUE")
        if given.is_dir():
            raise InputError(
                f"got the folder '{name}', expected a recipe file (.toml). Give --data folder:{name}"
            )
        known = {file.name for place in places[1:] for file in place.parent.glob("*.toml")}
        raise unknown("recipe", name, known)
    return found


def read_toml(path: Path) -> dict[str, Any]:
    """Return the settings in a recipe file."""
    try:
        return tomllib.loads(read_text(path, "a recipe (TOML, see recipes/)"))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InputError(f"recipe '{path}': expected TOML, got an error: {error}") from error


def _parse(key: str, text: str) -> Any:
    """Return the value of `key=text` from the command line; the text itself if it is no number or truth value."""
    kind = _kind(key)
    if typing.get_origin(kind) is tuple:
        parts = text.strip().removeprefix("[").removesuffix("]").split(",")
        return [_scalar(part.strip()) for part in parts if part.strip()]
    return text if kind is str else _scalar(text.strip())


def _scalar(text: str) -> int | float | bool | str:
    """Parse a number or truth value in any usual spelling (.1, 1e2, 1_000, True); return other text unchanged."""
    for number in (int, float):
        with suppress(ValueError):
            return number(text)
    return {"true": True, "false": False}.get(text.lower(), text)


def _kind(key: str) -> Any:
    """Return the type of a setting, without `| None`."""
    if key not in _TYPES:
        raise unknown("recipe key", key, _TYPES, "igcv train --keys lists them all", our_name(key))
    kind = _TYPES[key]
    return typing.get_args(kind)[0] if isinstance(kind, types.UnionType) else kind


def convert(key: str, value: Any) -> Any:
    """Convert `value` to the type of setting `key`.

    An integral float becomes an integer, an integer a float, and a single number a list. Paths become absolute (see
    `PLACES`): a run then refers to the same images from every working folder.

    Raises:
        InputError: the value has the wrong type.
    """
    if key in PLACES and isinstance(value, str | os.PathLike):
        return PLACES[key](os.fspath(value))
    kind = _kind(key)
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind is float and number:
        return float(value)
    if typing.get_origin(kind) is tuple and (number or isinstance(value, list | tuple)):
        items = value if isinstance(value, list | tuple) else [value]
        return tuple(_number(key, item, typing.get_args(kind)[0]) for item in items)
    if kind in (int, bool, str) and type(value) is kind:
        return value
    name = getattr(kind, "__name__", str(kind)) if typing.get_origin(kind) is None else "list of numbers"
    words = {"int": "an integer", "float": "a number", "bool": "true or false", "str": "text"}
    raise InputError(f"{key}: got {value!r}, expected {words.get(name, 'a list of numbers')}")


def _number(key: str, value: Any, kind: type) -> Any:
    """Convert an item of a list to `kind`; an integral float becomes an integer, an integer a float."""
    if kind is int and isinstance(value, float) and value.is_integer():
        return int(value)
    if isinstance(value, bool) or not isinstance(value, int | kind):
        words = "integers, e.g. 1,2" if kind is int else "numbers, e.g. 100,200"
        raise InputError(f"{key}: got {value!r} in the list, expected {words}")
    return kind(value)
