"""Rules for JSON values: which parts of a value are kept, and what they have to be.

A rule is one of: a range (an integer in it), a type (a value of exactly this type), a pattern (a text that matches as a
whole), a frozen set (a member), a list of one rule (a list of such values), a dict (an object; keys without a rule are
dropped), or an instance of a class below.
"""

import re
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple


class Optional(NamedTuple):
    """Value that may also be null."""

    rule: Any


class OneOf(NamedTuple):
    """Object with exactly one of these keys."""

    rules: Mapping[str, Any]


class ByName(NamedTuple):
    """Object with keys that match a pattern, and values of one rule."""

    names: re.Pattern[str]
    rule: Any


def kept(value: Any, rule: Any, place: str) -> Any:
    """Return the parts of a JSON value that a rule keeps.

    Args:
        value: the value.
        rule: the rule.
        place: where the value stands, for messages.

    Raises:
        ValueError: if a part breaks its rule.

    >>> kept({"name": "x", "more": 1}, {"name": re.compile("[a-z]")}, "node")
    {'name': 'x'}
    """
    return _KINDS[type(rule)](value, rule, place)


def _refused(value: Any, place: str) -> ValueError:
    return ValueError(f"{place} is {repr(value)[:80]}")


def _integer(value: Any, rule: range, place: str) -> int:
    if type(value) is not int or value not in rule:
        raise _refused(value, place)
    return value


def _typed(value: Any, rule: type, place: str) -> Any:
    if type(value) is not rule:
        raise _refused(value, place)
    return value


def _text(value: Any, rule: re.Pattern[str], place: str) -> str:
    if type(value) is not str or not rule.fullmatch(value):
        raise _refused(value, place)
    return value


def _member(value: Any, rule: frozenset[Any], place: str) -> Any:
    if isinstance(value, list | dict) or value not in rule:
        raise _refused(value, place)
    return value


def _listed(value: Any, rule: list[Any], place: str) -> list[Any]:
    return [kept(each, rule[0], place) for each in _typed(value, list, place)]


def _object(value: Any, rule: dict[str, Any], place: str) -> dict[str, Any]:
    found = _typed(value, dict, place)
    return {key: kept(found[key], rule[key], key) for key in rule if key in found}


def _optional(value: Any, rule: Optional, place: str) -> Any:
    return None if value is None else kept(value, rule.rule, place)


def _one_of(value: Any, rule: OneOf, place: str) -> dict[str, Any]:
    found = _typed(value, dict, place)
    if len(found) != 1 or not found.keys() <= rule.rules.keys():
        raise _refused(value, place)
    return _object(found, dict(rule.rules), place)


def _by_name(value: Any, rule: ByName, place: str) -> dict[str, Any]:
    found = _typed(value, dict, place)
    return {_text(key, rule.names, place): kept(each, rule.rule, place) for key, each in found.items()}


_KINDS: dict[type, Callable[[Any, Any, str], Any]] = {
    range: _integer,
    type: _typed,
    re.Pattern: _text,
    frozenset: _member,
    list: _listed,
    dict: _object,
    Optional: _optional,
    OneOf: _one_of,
    ByName: _by_name,
}
