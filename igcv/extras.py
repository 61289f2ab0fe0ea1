"""Packages that only some jobs need: they belong to extras, and are imported where they are used."""

from importlib import import_module
from importlib.util import find_spec
from typing import Any

from igcv.errors import InputError


def required(package: str, purpose: str, extra: str) -> Any:
    """Import a package of an extra.

    Args:
        package: the name to import.
        purpose: what needs it, for the message.
        extra: the extra of igcv that installs it.

    Raises:
        InputError: it is not installed; with the command that installs it.
    """
    if not installed(package):
        raise InputError(
            f"'{purpose}' needs the package {package}, which is not installed: pip install 'igcv[{extra}]'"
        )
    return import_module(package)


def installed(*packages: str) -> bool:
    """Return whether all of these packages can be imported."""
    return all(find_spec(package) is not None for package in packages)
