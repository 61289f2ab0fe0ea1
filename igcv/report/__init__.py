"""Pictures and pages from the files of a run; knows nothing of torch."""

from igcv.report.drawing import draw_block
from igcv.report.figures import images_of
from igcv.report.page import RunReport, StageCost, report_page

__all__ = ["RunReport", "StageCost", "draw_block", "images_of", "report_page"]
