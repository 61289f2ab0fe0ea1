"""Writers of folded networks, one per file format."""
