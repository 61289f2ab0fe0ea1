"""Old name of `igcv.conversion`."""

from igcv.renamed import old_names

__getattr__ = old_names(__name__)
