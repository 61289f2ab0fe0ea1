"""A trained network in a web page."""

from igcv.web.writer import Page, write_page

__all__ = ["Page", "write_page"]
