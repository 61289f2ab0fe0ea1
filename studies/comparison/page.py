"""Tables of the comparison in Markdown."""

from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from igcv.analysis import model_cost
from studies.benchmarks.engines_page import ratios
from studies.benchmarks.spreads import spread, with_range
from studies.comparison.engines import ENGINES
from studies.comparison.networks import BASELINE, NETWORKS, TIMM, Network
from studies.markdown import replaced, table_row
from studies.table.outcomes import Column

BEGIN, END = "<!-- comparison: written by python -m studies.comparison -->\n", "<!-- end of comparison -->\n"
SMALL_BEGIN, SMALL_END = (
    "<!-- small: written by python -m studies.comparison -->\n",
    "<!-- end of small -->\n",
)
COSTS = ("parameters, 10 classes", "multiply-adds, 32 px", "relative time, 32 px")


def page_with(
    page: str, result: Mapping[str, Any], trained: Sequence[Column], speed: Mapping[str, Any]
) -> str:
    """Return the page with its two tables between their marks.

    Args:
        page: the page.
        result: the measured times, as stored.
        trained: the accuracies that igcv has measured.
        speed: the relative times at 32 pixels by network, as stored by `python -m studies.table latency`.
    """
    page = replaced(page, BEGIN, END, f"\n{table(result)}\n")
    return replaced(page, SMALL_BEGIN, SMALL_END, f"\n{small_table(trained, speed)}\n")


def small_table(trained: Sequence[Column], speed: Mapping[str, Any]) -> str:
    """Return the networks that igcv has trained on images of 32 pixels, with their cost."""
    lines = [
        table_row(["network", "data, recipe, epochs", "top-1, measured", *COSTS]),
        "|---|---|---:|---:|---:|---:|",
    ]
    for column in trained:
        for name, found in column.networks.items():
            if not (column.data.startswith("cifar") and found.top1):
                continue
            cost, ratio = model_cost(name, 10, 32), speed[name]["ratio"]
            lines.append(
                table_row(
                    [
                        *(f"`{name}`", column.label, str(found)),
                        f"{cost.parameters / 1e6:.2f} M",
                        f"{cost.multiply_adds / 1e6:.0f} M",
                        with_range(ratio["median"], ratio["low"], ratio["high"]),
                    ]
                )
            )
    return "\n".join(lines)


def table(result: Mapping[str, Any]) -> str:
    """Return a row per network, and the conditions."""
    engines = [name for name in ENGINES if name in result["engines"]]
    lines = [
        table_row(
            [
                *("network", "top-1 / top-5, published"),
                *(f"relative time, {ENGINES[name].title}" for name in engines),
                *("parameters, 1000 / 10 classes", "multiply-adds", "source of the accuracy"),
            ]
        ),
        "|---|---:|" + "---:|" * len(engines) + "---:|---:|---|",
    ]
    for network in NETWORKS:
        costs = result["costs"][network.name]
        title = f"{network.title} ({network.year})"
        published, source = accuracy(network)
        cells = [
            *(f"**{title}**" if network.interleaved else title, published),
            *(spread(relative(result["engines"][name]["cpu_ms"], network.name), 2) for name in engines),
            f"{costs['parameters'] / 1e6:.2f} / {costs['parameters_10_classes'] / 1e6:.2f} M",
            *(f"{costs['multiply_adds'] / 1e6:.0f} M", source),
        ]
        lines.append(table_row(cells))
    return "\n".join([*lines, "", *conditions(result)])


def relative(times: Mapping[str, list[float]], name: str) -> list[float]:
    """Return the time of a network divided by that of the baseline, within each round."""
    return ratios(times[name], times[BASELINE])


def accuracy(network: Network) -> tuple[str, str]:
    """Return the published accuracy of a network and its source, as text."""
    if network.published is None:
        return "none", ""
    published = network.published
    text = f"{published.top1:.1f} / {published.top5:.1f}"
    notes = [f"{published.size} px"] if published.size != 224 else []
    notes += ["distilled"] if published.distilled else []
    text += f" ({', '.join(notes)})" if notes else ""
    weights = f"`{published.weights}`" if published.weights else ""
    project = "" if published.source == TIMM else published.source
    return text, ", ".join(filter(None, (project, weights)))


def conditions(result: Mapping[str, Any]) -> list[str]:
    """Return the conditions of the measurement, one list item per engine."""
    lines = []
    for name, found in result["engines"].items():
        about, times = found["machine"], found["cpu_ms"][BASELINE]
        packages = (ENGINES[name].package, ENGINES[name].converter, "torch", "timm", "torchvision", "igcv")
        versions = ", ".join(f"{package} {about[package]}" for package in packages)
        lines.append(
            f"- {ENGINES[name].title}: measured {about['date']} on {about['processor']} ({about['architecture']}), "
            f"{about['cores']} shared cores; median (min to max) of {len(times)} rounds; MobileNetV2 takes "
            f"{median(times):.2f} ms; {versions}"
        )
    return lines
