"""Output of the commands: tables and lines from plain numbers."""
