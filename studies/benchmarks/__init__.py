"""Benchmarks: commands that measure training, inference and data loading, and their results.

They import each other by the root of the repository, which the editable install of `make` puts on the path.
"""
