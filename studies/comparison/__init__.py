"""IGCV3 beside today's small networks: `python -m studies.comparison`."""
