"""Web pages that run a trained network in the browser."""

from igcv.web.writer import Page, write_page

__all__ = ["Page", "write_page"]
