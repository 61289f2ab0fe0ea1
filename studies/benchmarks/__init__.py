"""Benchmarks of training, inference and data loading, and their results.

The modules import each other from the repository root, which the editable install of `make` adds to the path.
"""
