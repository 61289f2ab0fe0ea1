"""A setting of a recipe: its rule, and its value as TOML."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from igcv.errors import InputError


def setting(default: Any, text: str, *, choices: tuple[Any, ...] = (), low: float | None = None) -> Any:
    """A field of the recipe: its default, what it means, and which values it takes."""
    return field(default=default, metadata={"help": text, "choices": choices, "low": low})


def check(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    """Raise InputError unless `value` fits the rule of setting `name`."""
    if rule["choices"] and value not in rule["choices"]:
        nearest = difflib.get_close_matches(str(value), rule["choices"], n=1, cutoff=0.4)
        guess = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise InputError(f"{name} = '{value}' is unknown{guess} (one of: {', '.join(rule['choices'])})")
    if isinstance(value, float) and math.isinf(value):
        raise InputError(f"{name} = {value} is no finite number; give one")
    if rule["low"] is not None and value is not None and not value >= rule["low"]:
        raise InputError(f"{name} = {value} is too small; give at least {rule['low']}")


def to_toml(value: Any) -> str:
    """A value in TOML: text quoted, lists in brackets, true and false in lower case."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
