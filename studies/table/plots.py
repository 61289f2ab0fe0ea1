"""Plot of accuracy versus parameters, multiply-adds and latency."""

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib.figure import Figure

from igcv.analysis import model_cost
from studies.table.outcomes import Column
from studies.table.plan import NETWORKS

PUBLISHED = "CIFAR-10, published"
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
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    for axes, (unit, at) in zip(figure.subplots(1, 3, sharey=True), places.items(), strict=True):
        for (label, points), color in zip(_series(found).items(), COLORS, strict=False):
            shown = [row for row in NETWORKS if row.model in at and row.model in points]
            for number, row in enumerate(shown):  # alternate the sides, so that few labels overlap
                place, side = (at[row.model], points[row.model][0]), ("right", "left")[number % 2]
                if place[0] == min(at.values()):  # the axis would cut a label to the left of the first point
                    side = "left"
                offset = (-6 if side == "right" else 6, 5)
                axes.annotate(row.label, place, offset, textcoords="offset points", fontsize=9, ha=side)
            fill = "none" if label == PUBLISHED else color
            axes.errorbar(
                [at[row.model] for row in shown],
                [points[row.model][0] for row in shown],
                yerr=[points[row.model][1] for row in shown],
                **{"fmt": "o", "capsize": 3, "color": color, "markerfacecolor": fill, "label": label},
            )
        axes.set(xlabel=unit, xscale="linear" if unit.startswith("parameters") else "log")
        axes.grid(alpha=0.25)
        axes.margins(0.4, 0.2)
    figure.axes[0].set(ylabel="top-1 (%)")
    figure.legend(
        *figure.axes[0].get_legend_handles_labels(), frameon=False, loc="outside upper left", ncols=4
    )
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
