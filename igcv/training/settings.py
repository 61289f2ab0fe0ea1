"""Settings of a recipe: declaration, validation and TOML output."""

import difflib
import json
import math
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from igcv.errors import InputError


def setting(default: Any, text: str, *, choices: tuple[Any, ...] = (), low: float | None = None) -> Any:
    """Return a field of the recipe.

    Args:
        default: the default value.
        text: the meaning, for `igcv train --keys`.
        choices: the valid values; empty: any value of the type.
        low: the smallest valid value; None: no limit.
    """
    return field(default=default, metadata={"help": text, "choices": choices, "low": low})


def check(name: str, value: Any, rule: Mapping[str, Any]) -> None:
    """Raise InputError unless `value` is valid by the metadata `rule` of setting `name`."""
    if rule["choices"] and value not in rule["choices"]:
        nearest = difflib.get_close_matches(str(value), rule["choices"], n=1, cutoff=0.4)
        guess = f"; did you mean '{nearest[0]}'?" if nearest else ""
        raise InputError(f"{name}: got '{value}', expected one of: {', '.join(rule['choices'])}{guess}")
    if isinstance(value, float) and math.isinf(value):
        raise InputError(f"{name}: got {value}, expected a finite number")
    if rule["low"] is not None and value is not None and not value >= rule["low"]:
        raise InputError(f"{name}: got {value}, expected at least {rule['low']}")


def to_toml(value: Any) -> str:
    """Return a value in TOML syntax."""
    if isinstance(value, tuple):
        return "[" + ", ".join(map(to_toml, value)) + "]"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007f")
    return str(value).lower() if isinstance(value, bool) else repr(value)
