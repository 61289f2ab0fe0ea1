"""docs/reliability.md: current results, existing tests, and settings and limits as in the code."""

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


def test_the_situations_of_the_page_have_tests() -> None:
    section = PAGE.read_text().partition("## Everyday situations")[2].partition("\n## ")[0]
    rows = [line for line in section.splitlines() if line.startswith("| ")][1:]
    named = [re.findall(r"`(tests/test_\w+\.py)`", row) for row in rows]
    assert len(named) == 12 and all(named)
    assert all((PAGE.parents[1] / file).is_file() for files in named for file in files)


def test_settings_and_limits_of_the_page() -> None:
    page, defaults = PAGE.read_text(), {f.name: f.default for f in fields(Recipe)}
    for name in ("save_minutes", "max_left_out"):
        assert re.search(rf"`{name}` \({defaults[name]:g}\)", page), name
    assert tuple(
        int(number) for number in re.search(r"more than (\d+) million pixels, or (\d+) MiB", page).groups()
    ) == (MAX_PIXELS // 10**6, MAX_BYTES >> 20)
