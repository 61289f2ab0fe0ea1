"""HTML reports and block drawings, without torch; they need the extra "report"."""

from typing import TYPE_CHECKING

from igcv.renamed import old_names

if not TYPE_CHECKING:  # type checkers reject the old names
    __getattr__ = old_names(__name__)
