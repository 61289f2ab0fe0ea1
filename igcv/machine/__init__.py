"""The machine: processes, memory, time and precision."""
