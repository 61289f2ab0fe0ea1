"""Pictures and pages from the files of a run; knows nothing of torch."""

from igcv.report.drawing import draw_block
from igcv.report.page import RunReport, Stage, report_page

__all__ = ["RunReport", "Stage", "draw_block", "report_page"]
