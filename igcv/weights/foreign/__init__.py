"""Readers and writers for weights of other projects."""
