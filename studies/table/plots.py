"""Plot of accuracy versus parameters, multiply-adds and latency."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch
from matplotlib.ticker import LogLocator, NullFormatter

from igcv.analysis import model_cost
from studies.table.outcomes import Column
from studies.table.plan import NETWORKS

PUBLISHED = "CIFAR-10, published"
MARKERS = "os^DvP*X<>"[: len(NETWORKS)]
COLORS = ("#2f6db5", "#cc6600", "#3d8f2e", "#a03070")


def plot(found: Sequence[Column], latencies: Mapping[str, float], path: Path) -> None:
    """Plot published and measured accuracy versus parameters, multiply-adds and latency.

    Args:
        found: columns of results.
        latencies: measured milliseconds per image by network.
        path: image file.
    """
    costs = {row.model: model_cost(row.model, 10, 32) for row in NETWORKS}
    places = {
        "parameters (M)": {model: cost.parameters / 1e6 for model, cost in costs.items()},
        "multiply-adds (M), 32 px": {model: cost.multiply_adds / 1e6 for model, cost in costs.items()},
        "ms per image, 32 px, measured": latencies,
    }
    figure, series = Figure(figsize=(13, 4.6), layout="constrained"), _series(found)
    for axes, (unit, at) in zip(figure.subplots(1, 3, sharey=True), places.items(), strict=True):
        for (label, points), color in zip(series.items(), COLORS, strict=False):
            for row, marker in zip(NETWORKS, MARKERS, strict=True):
                if row.model in at and row.model in points:
                    mean, spread = points[row.model]
                    fill = "white" if label == PUBLISHED else color
                    how = {
                        "fmt": marker,
                        "capsize": 3,
                        "markersize": 8,
                        "color": color,
                        "markerfacecolor": fill,
                    }
                    axes.errorbar(at[row.model], mean, spread, **how)
        axes.set(xlabel=unit)
        if not unit.startswith("parameters"):
            axes.set_xscale("log")
            axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
            axes.xaxis.set_major_formatter("{x:g}")
            axes.xaxis.set_minor_formatter(NullFormatter())
        axes.grid(alpha=0.25)
        axes.margins(0.15, 0.15)
    figure.axes[0].set(ylabel="top-1 (%)")
    plotted = [model for points in series.values() for model in points]
    networks = [
        Line2D([], [], color="gray", marker=marker, linestyle="none", label=row.model)
        for row, marker in zip(NETWORKS, MARKERS, strict=True)
        if row.model in plotted
    ]
    sources = [
        Patch(facecolor="none" if label == PUBLISHED else color, edgecolor=color, label=label)
        for label, color in zip(series, COLORS, strict=False)
    ]
    for handles, place in ((networks, "outside upper left"), (sources, "outside lower left")):
        figure.legend(handles=handles, frameon=False, loc=place, ncols=len(handles), fontsize=9)
    figure.savefig(path, dpi=110)


def _series(found: Sequence[Column]) -> dict[str, dict[str, tuple[float, float]]]:
    """Return mean and spread by network of the published and the measured accuracies on CIFAR-10."""
    published: dict[str, tuple[float, float]] = {
        row.model: tuple(row.published["cifar10"]) for row in NETWORKS if row.published
    }
    return {PUBLISHED: published} | {
        f"{column.label}, measured": {m: (f.mean, f.spread) for m, f in column.networks.items() if f.top1}
        for column in found
        if column.data == "cifar10"
    }
