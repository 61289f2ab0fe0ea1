"""Where what takes long to get is kept for the next time: measured plans, and the engine for browsers."""

import os
import tempfile
from pathlib import Path

from igcv.errors import InputError
from igcv.writing import check_writable


def cache_folder() -> Path:
    """$IGCV_CACHE, else the user's cache folder, which may not exist yet; of a user without a home a temporary one."""
    if own := os.environ.get("IGCV_CACHE"):
        return Path(own)
    if cache := os.environ.get("XDG_CACHE_HOME"):
        return Path(cache) / "igcv"
    try:
        return Path.home() / ".cache" / "igcv"
    except RuntimeError:  # the system knows no home
        return Path(tempfile.gettempdir()) / f"igcv-{os.getuid()}"


def unwritable() -> str:
    """Return why nothing can be kept in the cache folder, and how to change that; empty where it can."""
    try:
        check_writable(cache_folder())
    except InputError as error:
        return f"{error}, set IGCV_CACHE"
    return ""
