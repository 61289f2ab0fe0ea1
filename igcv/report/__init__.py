"""Pictures and tables from the files of a run; knows nothing of torch."""

from igcv.report.curves import draw_curves

__all__ = ["draw_curves"]
