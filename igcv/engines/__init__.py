"""Inference engines, which run exported files."""
