"""Long reliability tests (campaigns): `python -m studies.soak --help`."""
