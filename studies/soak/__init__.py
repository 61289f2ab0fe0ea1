"""Campaigns that try to make igcv lose or break something: `python -m studies.soak --help`."""
