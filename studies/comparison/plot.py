"""Plot of the comparison: published accuracy against measured time and against parameters."""

from collections.abc import Mapping
from pathlib import Path
from statistics import median
from typing import Any

import matplotlib

from studies.comparison.networks import NETWORKS
from studies.comparison.page import relative

matplotlib.use("Agg")
BELOW = ("mobilenetv4_conv_small", "efficientnet_lite0")  # their labels, above the points, would cover others


def plot(result: Mapping[str, Any], file: Path) -> None:
    """Plot the top-1 accuracy of the networks that have one, against time and parameters."""
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.8), sharey=True)
    places = {
        "time in ONNX Runtime, relative to MobileNetV2 1.0x": {
            network.name: median(relative(result["engines"]["onnx"]["cpu_ms"], network.name))
            for network in NETWORKS
        },
        "parameters in millions": {name: cost["parameters"] / 1e6 for name, cost in result["costs"].items()},
    }
    for axis, (title, place) in zip(axes, places.items(), strict=True):
        for network in NETWORKS:
            if network.published is None:
                continue
            color = "#c44e52" if network.interleaved else "#4c72b0"
            x, y = place[network.name], network.published.top1
            axis.plot(x, y, "o" if not network.published.distilled else "s", color=color)
            offset = (5, -11) if network.name in BELOW else (5, 4)
            axis.annotate(network.title, (x, y), offset, textcoords="offset points", fontsize=9, color=color)
        axis.set_xlabel(title, fontsize=10)
        axis.spines[["top", "right"]].set_visible(False)
        axis.grid(alpha=0.3)
        axis.margins(x=0.3)
    axes[0].set_ylabel("ImageNet top-1 in percent, published", fontsize=9)
    figure.tight_layout()
    figure.savefig(file, dpi=110)
    plt.close(figure)
