"""Pictures and tables from the files of a run; knows nothing of torch."""

from igcv.report.curves import draw_curves
from igcv.report.drawing import draw_block

__all__ = ["draw_block", "draw_curves"]
