"""The command line: one command per job; each parses, makes one call, and prints."""
