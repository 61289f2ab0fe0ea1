"""Plot of the latency benchmark."""

from pathlib import Path
from typing import Any

import matplotlib

from igcv.engines.table import ENGINES
from igcv.terminal import counted
from studies.benchmarks.latency_page import place_of, row

matplotlib.use("Agg")


def plot(result: dict[str, Any], file: Path) -> None:
    """Plot the milliseconds per image of every entry at 224 pixels, with one panel per engine and setting."""
    import matplotlib.pyplot as plt

    measured = {place_of(r)[1:] for r in result["rows"] if r["size"] == 224}
    if not measured:
        return
    engines = [engine for engine in ENGINES if any(engine == place[0] for place in measured)]
    settings = sorted({place[1:] for place in measured})
    figure, axes = plt.subplots(
        len(engines),
        len(settings),
        figsize=(2.8 * len(settings) + 2.4, 2.6 * len(engines)),
        squeeze=False,
    )
    places = [(engine, *setting) for engine in engines for setting in settings]
    for axis, (engine, batch, threads) in zip(axes.flat, places, strict=True):
        if (engine, batch, threads) not in measured:
            axis.set_axis_off()
            continue
        labels = [r["label"] for r in result["rows"] if place_of(r) == (224, engine, batch, threads)]
        found = [row(result, label, engine, 224, batch, threads) for label in labels]
        times = [f.median_ms / batch for f in found if f]
        colors = ["#c44e52" if label.startswith("igcv3") else "#8c8c8c" for label in labels]
        axis.barh(labels, times, color=colors)
        axis.bar_label(axis.containers[0], [f"{time:.1f}" for time in times], padding=2, fontsize=8)
        axis.invert_yaxis()
        axis.tick_params(labelsize=8)
        if (engine, batch, threads) != next(
            place for place in places if place in measured and place[0] == engine
        ):
            axis.set_yticks([])  # only the first panel of a row shows the labels
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.2)
        axis.set_title(f"{engine}, batch {batch}, {counted(threads, 'thread')}", fontsize=9, loc="left")
        axis.set_xlabel("ms per image", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
