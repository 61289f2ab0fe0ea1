"""Where what takes long to get is kept for the next time: measured plans, and the engine for browsers."""

import os
from pathlib import Path


def cache_folder() -> Path:
    """$IGCV_CACHE, else the user's cache folder; it may not exist yet."""
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(os.environ.get("IGCV_CACHE") or Path(cache) / "igcv")
