"""Campaigns that try to make igcv lose or break something: `python -m soak --help`."""
