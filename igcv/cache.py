"""The cache folder for measured plans and the browser engine."""

import os
import tempfile
from pathlib import Path

from igcv.errors import InputError
from igcv.writing import check_writable


def cache_folder() -> Path:
    """Return the cache folder, which may not exist yet.

    The folder is $IGCV_CACHE, else the user's cache folder, else a temporary folder for a user without a home.
    """
    if own := os.environ.get("IGCV_CACHE"):
        return Path(own)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "igcv"
    try:
        return Path.home() / ".cache" / "igcv"
    except RuntimeError:  # the user has no home folder
        return Path(tempfile.gettempdir()) / f"igcv-{os.getuid()}"


def unwritable() -> str:
    """Return the reason why the cache folder is not writable, with a fix; empty if the folder is writable."""
    try:
        check_writable(cache_folder())
    except InputError as error:
        return f"{error} with IGCV_CACHE"
    return ""
