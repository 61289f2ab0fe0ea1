"""Exported files in their inference engines."""
