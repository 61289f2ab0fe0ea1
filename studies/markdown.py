"""Table rows and generated sections of pages, in Markdown."""

from collections.abc import Iterable


def table_row(cells: Iterable[str]) -> str:
    """Return a Markdown table row."""
    return f"| {' | '.join(cells)} |"


def replaced(page: str, begin: str, end: str, text: str) -> str:
    """Return a page with the text between two marker lines replaced by `text`."""
    before, mark, rest = page.partition(begin)
    _, closing, after = rest.partition(end)
    assert mark and closing, f"page: markers not found: {begin}{end}"
    return f"{before}{begin}{text}\n{end}{after}"
