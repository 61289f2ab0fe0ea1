"""Tables of the study in Markdown."""

from collections.abc import Mapping
from statistics import mean
from typing import Any

from studies.markdown import replaced, table_row
from studies.photos.plan import METHODS, SETS

BEGIN, END = "<!-- photos: written by python -m studies.photos report -->\n", "<!-- end of photos -->\n"


def table(results: Mapping[str, Any]) -> str:
    """Return the table of accuracies, the table of chosen settings, and the conditions."""
    rows = results["rows"]
    methods = [name for name in METHODS if any(key.split("/")[1] == name for key in rows)]
    head = [
        "data set",
        "validation images",
        "share of the largest class",
        *(METHODS[name] for name in methods),
    ]
    lines = [table_row(head), "|---|---:|---:|" + "---:|" * len(methods)]
    for wanted in SETS:
        found = {name: _of(rows, wanted.name, name) for name in methods}
        first = next(
            (entry for entries in found.values() for entry in entries if "largest_class" in entry), None
        )
        if first is None:
            continue
        cells = [_accuracy(found[name], timed=name != "by_hand") for name in methods]
        lines.append(
            table_row([wanted.title, str(first["images"]), f"{first['largest_class']:.1f} %", *cells])
        )
    return "\n".join([*lines, "", *_chosen(rows), "", _conditions(rows)])


def page_with(page: str, text: str) -> str:
    """Return the page with `text` between its marks."""
    return replaced(page, BEGIN, END, f"\n{text}\n")


def _of(rows: Mapping[str, Any], name: str, method: str) -> list[Mapping[str, Any]]:
    """Return the rows of a set and a method, one per seed."""
    return [row for key, row in rows.items() if key.split("/")[:2] == [name, method]]


def _accuracy(entries: list[Mapping[str, Any]], timed: bool) -> str:
    """Return the mean top-1 accuracy of one or more seeds as text.

    The balanced accuracy follows if it differs by 2 points or more, then the minutes if `timed`.
    """
    if not entries:
        return ""
    text = f"{mean(entry['top1'] for entry in entries):.1f} %"
    balanced = [entry["balanced"] for entry in entries if entry.get("balanced") is not None]
    if balanced and abs(mean(balanced) - mean(entry["top1"] for entry in entries)) >= 2:
        text += f" (balanced {mean(balanced):.1f} %)"
    return f"{text}, {mean(entry['minutes'] for entry in entries):.0f} min" if timed else text


def _chosen(rows: Mapping[str, Any]) -> list[str]:
    """Return a table of the settings that the command chose."""
    found = {s.title: entries[0] for s in SETS if (entries := _of(rows, s.name, "scratch"))}
    if not found:
        return []
    keys = list(next(iter(found.values()))["chosen"])
    lines = [table_row(["chosen settings", *(f"`{key}`" for key in keys)]), "|---|" + "---:|" * len(keys)]
    return lines + [
        table_row([title, *(_shown(row["chosen"][key]) for key in keys)]) for title, row in found.items()
    ]


def _shown(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)


def _conditions(rows: Mapping[str, Any]) -> str:
    """Return the measurement conditions."""
    machines = [row["machine"] for row in rows.values()]
    seeds = max(int(key.split("/")[2]) for key in rows) + 1
    first, dates = machines[0], sorted({machine["date"] for machine in machines})
    versions = ", ".join(f"{name} {first[name]}" for name in ("torch", "timm") if name in first)
    return (
        f"Top-1 accuracy of the best epoch on validation images, measured on {' and '.join(dates)}, "
        f"{seeds} seed{'s' * (seeds > 1)}: {first['processor']}, {first['cores']} shared cores, {versions}. The "
        "binomial standard error of an accuracy of 80 % is 1.6 points for 600 images and 3.3 points for 150. Photos: "
        "TensorFlow's `flower_photos` (subsets with the given number of photos) and PyTorch's `hymenoptera_data`."
    )
