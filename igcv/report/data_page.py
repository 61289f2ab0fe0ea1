"""HTML page of a data set check, in one file."""

from collections.abc import Mapping, Sequence
from importlib.resources import files
from typing import Any

from igcv.report.page import templates
from igcv.report.run import duration

Pictured = tuple[str, str]  # name of an image, and its thumbnail as a data URI, empty if unreadable


def data_page(
    checked: Mapping[str, Any],
    choices: Sequence[str],
    thumbnails: Mapping[str, Sequence[str]],
    pairs: Mapping[str, Sequence[Sequence[Pictured]]],
) -> str:
    """Return the page as self-contained HTML.

    Args:
        checked: the findings (see `igcv.training.findings.DataCheck.as_dict`).
        choices: the settings that training would choose, one line with the reason per setting.
        thumbnails: images of each class as data URIs.
        pairs: pairs of duplicate images, by kind.
    """
    parts = [part for part in ("train", "val", "test") if any(part in c for c in checked["classes"].values())]
    largest = max((n for counts in checked["classes"].values() for n in counts.values()), default=1)
    environment = templates()
    environment.filters["duration"] = duration
    return environment.get_template("data.html").render(
        checked=checked,
        title=f"{checked['name']} · check",
        choices=choices,
        thumbnails=thumbnails,
        pairs=pairs,
        parts=parts,
        largest=largest,
        totals={part: sum(c.get(part, 0) for c in checked["classes"].values()) for part in parts},
        css=files("igcv.report").joinpath("page.css").read_text("utf-8"),
    )
