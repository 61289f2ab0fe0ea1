"""The page on reliability: its figures are those of the results, and what it says of settings is so."""

import re
from dataclasses import fields

from igcv.data.decoding import MAX_BYTES, MAX_PIXELS
from igcv.training import Recipe
from studies.soak.page import PAGE, RESULTS, ROWS, with_figures


def test_figures_are_those_of_the_results() -> None:
    page = PAGE.read_text()
    assert with_figures(page) == page
    measured = {path.stem for path in RESULTS.glob("*.json")}
    assert measured
    assert measured <= set(ROWS)
    for name in measured:
        assert f"`python -m studies.soak {name}`" in page


def test_settings_and_limits_of_the_page() -> None:
    page, defaults = PAGE.read_text(), {f.name: f.default for f in fields(Recipe)}
    for name in ("save_minutes", "max_left_out"):
        assert re.search(rf"`{name}` \({defaults[name]:g}\)", page), name
    assert tuple(
        int(number) for number in re.search(r"more than (\d+) million pixels, or (\d+) MiB", page).groups()
    ) == (MAX_PIXELS // 10**6, MAX_BYTES >> 20)
