"""Data sources, opened from a spec string such as folder:photos."""
