"""Comparison tables of the papers, trained from scratch in concurrent, resumable runs, and their results."""
