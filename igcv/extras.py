"""Optional dependencies (extras), imported at their point of use."""

from contextlib import nullcontext
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from igcv.errors import InputError
from igcv.silence import silent

LOUD = ("coremltools",)  # packages that report missing and untested packages on import


def required(package: str, purpose: str, extra: str) -> Any:
    """Import a package of an extra.

    Args:
        package: the name to import.
        purpose: the feature that needs the package, for the message.
        extra: the extra of igcv that installs the package.

    Raises:
        InputError: the package is not installed; the message gives the install command.
    """
    if not installed(package):
        raise InputError(
            f"'{purpose}' needs the package {package}, which is not installed: pip install 'igcv[{extra}]'"
        )
    with silent() if package.partition(".")[0] in LOUD else nullcontext():
        return import_module(package)


def installed(*packages: str) -> bool:
    """Return whether all of these packages can be imported."""
    return all(find_spec(package) is not None for package in packages)
