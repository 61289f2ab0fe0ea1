"""Benchmarks: commands that measure training, inference and data loading, and their results."""
