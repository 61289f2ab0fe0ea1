"""A folded network as a file, one writer per format."""
