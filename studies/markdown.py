"""Rows of tables, and parts of pages that a command writes, in Markdown."""

from collections.abc import Iterable


def table_row(cells: Iterable[str]) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(cells)} |"


def replaced(page: str, begin: str, end: str, text: str) -> str:
    """Return a page with `text` between two marks, each a line, in place of what is there."""
    before, mark, rest = page.partition(begin)
    _, closing, after = rest.partition(end)
    assert mark and closing, f"the page has no place for it: {begin}{end}"
    return f"{before}{begin}{text}\n{end}{after}"
