"""Processes, memory, timing and precision on this machine."""
