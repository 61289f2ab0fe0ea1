"""Plotly figures of a report, as HTML."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import plotly.graph_objects as go

from igcv.report.run import images_of

Metrics = Mapping[str, Any]
COLORS = ("#4c8dd6", "#e07b28", "#3ba55d", "#c2559b", "#b39b00", "#2aa6a6", "#8f6fd8", "#d05050")
MARKED = 40  # draw markers below this number of epochs
COUNTED = 12  # print the counts in a confusion matrix up to this many classes
MOST_CLASSES = 40  # per figure
CONFIG = {"displaylogo": False, "displayModeBar": False, "responsive": True}
MARGIN = {"l": 60, "r": 16, "t": 12, "b": 44}


class Panel(NamedTuple):
    """A figure of metrics by epoch."""

    title: str
    unit: str  # of the y axis
    curves: Mapping[str, Callable[[Metrics], float | None]]  # the value of an epoch; the first curve is solid


def _share_waited(row: Metrics) -> float | None:
    return 100 * row["data_wait_s"] / row["train_time_s"] if row["train_time_s"] else None


PANELS = (
    Panel(
        "Loss",
        "cross-entropy (nats)",
        {"validation": lambda row: row.get("val_loss"), "training": lambda row: row["train_loss"]},
    ),
    Panel(
        "Accuracy",
        "validation (%)",
        {
            "top-1": lambda row: row.get("val_top1"),
            "top-5": lambda row: row.get("val_top5"),
            "balanced": lambda row: row.get("val_balanced"),
        },
    ),
    Panel("Learning rate", "at the end of the epoch", {"learning rate": lambda row: row["lr"]}),
    Panel("Speed", "training images per second", {"images/s": lambda row: row["images_per_s"]}),
    Panel("Waiting for images", "% of the training time", {"waiting": _share_waited}),
)


def curves(panel: Panel, histories: Mapping[str, Sequence[Metrics]]) -> str:
    """Return a panel of curves, with one color per run.

    Args:
        panel: the panel to draw.
        histories: the metrics log of each run, by run name.
    """
    figure = go.Figure()
    for color, (run, history) in zip(run_colors(len(histories)), histories.items(), strict=True):
        for dash, (curve, value) in zip(("solid", "dot", "dash"), panel.curves.items(), strict=False):
            points = [(row["epoch"], y) for row in history if (y := value(row)) is not None]
            if points:
                name = ", ".join([run] * (len(histories) > 1) + [curve] * (len(panel.curves) > 1))
                epochs, values = zip(*points, strict=True)
                mode = "lines+markers" if len(points) < MARKED else "lines"
                line = {"color": color, "dash": dash, "width": 2}
                figure.add_scatter(x=epochs, y=values, name=name, mode=mode, line=line, marker={"size": 5})
    longest = max(map(len, histories.values()))
    figure.update_xaxes(title="epoch", tickformat="d", dtick=1 if longest <= 10 else None)
    figure.update_yaxes(title=panel.unit, hoverformat=".4~g")
    figure.update_layout(hovermode="x unified", legend={"orientation": "h", "y": 1.02, "yanchor": "bottom"})
    return _html(figure, height=300)


def confusion(counts: Mapping[tuple[int, int], int], names: Sequence[str]) -> str:
    """Return the confusion matrix in percent of each class's images; of many classes, those with the most errors."""
    shown = hardest(counts, len(names))
    total = images_of(counts)
    figure = go.Figure()
    # Errors have their own color scale, as they are few compared with correct predictions.
    for color, right in ((COLORS[0], True), (COLORS[1], False)):
        cells = [
            [counts.get((label, guess)) if (label == guess) is right else None for guess in shown]
            for label in shown
        ]
        shares = [
            [n and 100 * n / total[label] for n in row] for label, row in zip(shown, cells, strict=True)
        ]
        figure.add_heatmap(
            z=shares,
            text=[["" if n is None else n for n in row] for row in cells],
            colorscale=((0, _faint(color)), (1, color)),
            zmin=0,
            zmax=max((share for row in shares for share in row if share), default=100),
            showscale=False,
            hoverongaps=False,
            xgap=1,
            ygap=1,
            texttemplate="%{text}" if len(shown) <= COUNTED else None,
            hovertemplate="%{y} predicted as %{x}: %{text} images, %{z:.1f} %<extra></extra>",
        )
    places = list(range(len(shown)))
    labels = [_short(names[label]) for label in shown]
    edges = (-0.5, len(shown) - 0.5)
    figure.update_xaxes(
        title="predicted class", tickvals=places, ticktext=labels, showgrid=False, range=edges
    )
    figure.update_yaxes(
        title="true class",
        tickvals=places,
        ticktext=labels,
        showgrid=False,
        range=edges[::-1],
        automargin=True,
    )
    return _html(figure, height=max(320, 18 * len(shown) + 140))


def class_accuracy(counts: Mapping[tuple[int, int], int], names: Sequence[str]) -> str:
    """Return the accuracy per class, lowest first, for at most `MOST_CLASSES` classes."""
    total = images_of(counts)
    shares = {label: 100 * counts.get((label, label), 0) / n for label, n in total.items()}
    shown = sorted(shares, key=lambda label: (shares[label], label))[:MOST_CLASSES]
    figure = go.Figure()
    figure.add_bar(
        x=[shares[label] for label in shown],
        y=list(range(len(shown))),
        orientation="h",
        marker={"color": COLORS[0]},
        customdata=[(names[label], counts.get((label, label), 0), total[label]) for label in shown],
        hovertemplate="%{customdata[0]}: %{customdata[1]} of %{customdata[2]}, %{x:.2f} %<extra></extra>",
    )
    figure.update_xaxes(title="top-1 accuracy (%)", range=(0, 100))
    labels = [_short(names[label]) for label in shown]
    figure.update_yaxes(
        tickvals=list(range(len(shown))),
        ticktext=labels,
        autorange="reversed",
        automargin=True,
        showgrid=False,
    )
    return _html(figure, height=18 * len(shown) + 90)


def stage_costs(parts: Mapping[str, tuple[int, int]]) -> str:
    """Return the parameters and multiply-adds of each stage, in percent of the network.

    Args:
        parts: (parameters, multiply-adds) of each stage, from the input on.
    """
    figure = go.Figure()
    for i, what in enumerate(("parameters", "multiply-adds")):
        values = [costs[i] for costs in parts.values()]
        figure.add_bar(
            x=[100 * value / sum(values) for value in values],
            y=list(parts),
            name=what,
            orientation="h",
            marker={"color": COLORS[i]},
            customdata=values,
            hovertemplate="%{y}: %{customdata:,} " + what + ", %{x:.1f} %<extra></extra>",
        )
    figure.update_xaxes(title="% of the network")
    figure.update_yaxes(autorange="reversed", automargin=True, showgrid=False)
    figure.update_layout(legend={"orientation": "h", "y": 1.02, "yanchor": "bottom", "traceorder": "normal"})
    return _html(figure, height=34 * len(parts) + 110)


def hardest(counts: Mapping[tuple[int, int], int], classes: int) -> list[int]:
    """Return the classes with the most errors in label order; all classes if there are at most `MOST_CLASSES`."""
    if classes <= MOST_CLASSES:
        return list(range(classes))
    part = dict.fromkeys(range(classes), 0)
    for (label, guess), images in counts.items():
        if label != guess:
            part[label] += images
            part[guess] += images
    return sorted(sorted(part, key=lambda label: -part[label])[:MOST_CLASSES])


def run_colors(runs: int) -> list[str]:
    """Return the color of each run, the same in all figures."""
    return [COLORS[i % len(COLORS)] for i in range(runs)]


def _faint(color: str) -> str:
    """Return a nearly transparent version of a color."""
    red, green, blue = (int(color[i : i + 2], 16) for i in (1, 3, 5))
    return f"rgba({red}, {green}, {blue}, 0.08)"


def _short(name: str) -> str:
    """Return a class name shortened for an axis."""
    return name if len(name) <= 18 else f"{name[:17]}…"


def _html(figure: Any, height: int) -> str:
    """Return the HTML of a figure; page.js sets the colors of the color scheme."""
    figure.update_layout(
        template="none",
        height=height,
        margin=MARGIN,
        paper_bgcolor="rgba(0,0,0,0)",
        plot_bgcolor="rgba(0,0,0,0)",
        dragmode=False,
        font={"family": "system-ui, sans-serif", "size": 12},
    )
    figure.update_xaxes(zeroline=False)
    figure.update_yaxes(zeroline=False)
    return figure.to_html(full_html=False, include_plotlyjs=False, config=CONFIG)
