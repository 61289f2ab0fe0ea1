"""Benchmarks, the comparison table, reliability tests and their results."""
