"""Tables and plots from the results of trainings: nothing is typed, everything is read."""

import json
import math
import statistics
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from matplotlib.figure import Figure

from campaign.plan import BASELINE, NETWORKS, SEEDS, VARIANTS, label_of
from igcv.analysis import model_cost
from igcv.training.run import SUMMARY

BEGIN, END = "<!-- results: written by python -m campaign report -->\n", "<!-- end of results -->\n"
PUBLISHED = "CIFAR-10, published"
DATA = ("cifar10", "cifar100")
COLOURS = ("#2f6db5", "#cc6600", "#3d8f2e", "#a03070")
IMAGENET = (  # published, arXiv:1806.00178, tables 4 and 5: parameters in millions, top-1 / top-5, and retrained
    ("MobileNetV2 1.0x", 3.4, "70.0 / 89.0", "71.4 / 90.1"),
    ("IGCV3-D 1.0x", 3.5, "70.6 / 89.7", "72.2 / 90.5"),
)


TINY = "tinyimagenet"
# Published by others, trained from scratch: github.com/JunrQ/pytorch-cifar100. Top-1 on the validation photos.
TINY_BY_OTHERS = (("MobileNetV2", 48.26), ("EfficientNet", 57.34), ("ResNet-50", 66.21))


class Measured(NamedTuple):
    """The accuracies of one network or variant after its last epoch, in percent, a seed each, and their summaries."""

    top1: Sequence[float]
    summaries: Sequence[Mapping[str, Any]]

    @property
    def mean(self) -> float:
        return statistics.mean(self.top1)

    @property
    def spread(self) -> float:
        """The standard deviation over the seeds; of one seed the binomial standard error over its images."""
        if len(self.top1) > 1:
            return statistics.stdev(self.top1)
        share, images = self.mean / 100, self.summaries[0]["last"]["images"]
        return 100 * math.sqrt(share * (1 - share) / images)

    def __str__(self) -> str:
        """Mean and spread, and the number of seeds where it is one."""
        if not self.top1:
            return ""
        return f"{self.mean:.2f} ± {self.spread:.2f}" + (" (one seed)" if len(self.top1) == 1 else "")


class Column(NamedTuple):
    """What was measured on a data set with a recipe.

    Attributes:
        data: name of the data set.
        recipe: name of the recipe, without suffix.
        networks: what was measured, by catalog name.
    """

    data: str
    recipe: str
    networks: Mapping[str, Measured]

    @property
    def label(self) -> str:
        """The head of the column: data set, recipe, and how many epochs it has."""
        epochs = sorted({s["epochs"] for s in self.summaries})
        return f"{label_of(self.data)}, {self.recipe}, {' or '.join(map(str, epochs))} epochs"

    @property
    def summaries(self) -> list[Mapping[str, Any]]:
        """The summaries of all its trainings."""
        return [summary for found in self.networks.values() for summary in found.summaries]


def measured(folder: Path, names: Iterable[str]) -> Measured:
    """What the finished trainings of these names in a folder came to."""
    files = [folder / name / SUMMARY for name in names]
    summaries = [json.loads(file.read_text()) for file in files if file.is_file()]
    return Measured([summary["last"]["top1"] for summary in summaries], summaries)


def columns(results: Path) -> list[Column]:
    """Return what was measured, a column for each data set and recipe with a finished training."""
    found = []
    for folder in sorted(folder for folder in results.glob("*/*") if folder.is_dir()):
        if folder.parent.name.endswith("_ablation"):
            continue
        networks = {
            row.model: measured(folder, [f"{row.model}-seed{seed}" for seed in SEEDS]) for row in NETWORKS
        }
        found.append(Column(folder.parent.name, folder.name, networks))
    return [column for column in found if column.summaries]


def accuracy_table(found: Sequence[Column]) -> str:
    """Return published and measured accuracies side by side, in Markdown."""
    head = [
        "network",
        "`--model`",
        "parameters",
        "published",
        "CIFAR-10, paper",
        "CIFAR-100, paper",
        "by others",
    ]
    lines = [_cells([*head, *(f"{column.label}, measured" for column in found)])]
    lines.append("|---|---|" + "---:|" * (5 + len(found)))
    for row in NETWORKS:
        if not (row.published or row.by_others or any(column.networks[row.model].top1 for column in found)):
            continue  # nothing is known of it yet
        parameters = " / ".join(f"{model_cost(row.model, n, 32).parameters / 1e6:.2f}" for n in (10, 100))
        listed = f"{row.published_parameters} M" if row.published_parameters else ""
        published = [
            "{0.mean:.2f} ± {0.deviation:.2f}".format(row.published[d]) if d in row.published else ""
            for d in DATA
        ]
        others = " / ".join(f"{row.by_others[d]:.2f}" for d in DATA) if row.by_others else ""
        figures = [str(column.networks[row.model]) for column in found]
        lines.append(
            _cells([row.label, f"`{row.model}`", f"{parameters} M", listed, *published, others, *figures])
        )
    return "\n".join(lines)


def imagenet_table() -> str:
    """The published ImageNet accuracies, in Markdown."""
    lines = [
        "| network | parameters | top-1 / top-5, published | retrained, published |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(_cells([name, f"{size} M", *rest]) for name, size, *rest in IMAGENET)])


def tables(found: Sequence[Column]) -> str:
    """Return the accuracy tables with what they rest on, in Markdown."""
    summaries = [summary for column in found for summary in column.summaries]
    tiny, cifar = ([c for c in found if (c.data == TINY) == is_tiny] for is_tiny in (True, False))
    note = (
        "Top-1 accuracy in percent. Parameters: counted here, with 10 / 100 classes. Paper: arXiv:1806.00178, mean and "
        "standard deviation of five runs; how these networks were trained is not known. Its row 0.5x has half the "
        "parameters at full width, its row 0.7x seven tenths; the block counts are igcv's choice, as the authors "
        "published none. By others: CIFAR-10 / CIFAR-100 in arXiv:1905.03672, 400 epochs. "
        f"{how(summaries)}"
    )
    parts = [accuracy_table(cifar), *([tiny_table(tiny)] if tiny else []), imagenet_table(), note]
    return "\n\n".join(parts)


def tiny_table(found: Sequence[Column]) -> str:
    """Return the accuracies on Tiny-ImageNet, measured here and published by others, in Markdown."""
    lines = [_cells(["Tiny-ImageNet, 200 classes", "parameters", "top-1 %", "from"]), "|---|---:|---:|---|"]
    for column in found:
        for row in NETWORKS:
            if column.networks[row.model].top1:
                parameters = f"{model_cost(row.model, 200, 64).parameters / 1e6:.2f} M"
                lines.append(
                    _cells([f"`{row.model}`", parameters, str(column.networks[row.model]), column.label])
                )
    by_others = [
        _cells([name, "", f"{top1:.2f}", "published by others, from scratch"])
        for name, top1 in TINY_BY_OTHERS
    ]
    return "\n".join([*lines, *by_others])


def results_page(text: str, ablations: Mapping[str, Path], latencies: Mapping[str, Any] | None) -> str:
    """The page of all results, in Markdown."""
    parts = [
        "# Results",
        "Written by `python -m campaign report` from the folders beside this file: of each training its resolved "
        "recipe, its metrics log and its summary.",
        text,
        "![Accuracy against parameters, multiply-adds and latency](accuracy.png)",
    ]
    for name, folder in ablations.items():
        models = sorted({path.name.partition("-")[0] for path in folder.iterdir()})
        parts += [f"## {name}, {model}\n\n{ablation_table(folder, model)}" for model in models]
    if latencies:
        parts += [latency_section(latencies)]
    return "\n\n".join(parts) + "\n"


def latency_section(latencies: Mapping[str, Any]) -> str:
    """Return the measured latencies, in Markdown, from what `python -m campaign latency` wrote."""
    parts = ["## Latency", latency_conditions(latencies)]
    for size, networks in latencies["sizes"].items():
        head = f"| {size} pixels | ms | ratio to `{BASELINE}` |\n|---|---:|---:|"
        rows = [
            _cells([f"`{model}`", _spread(t["ms"]), _spread(t["ratio"])]) for model, t in networks.items()
        ]
        parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts)


def latency_conditions(latencies: Mapping[str, Any]) -> str:
    """Return what the latencies were measured on and how, in Markdown."""
    machine = latencies["machine"]
    return (
        f"Measured {machine['date']} on {machine['processor']}, {machine['cores']} shared cores: ONNX Runtime "
        f"{machine['onnxruntime']}, float32, folded, form `auto`, batch 1, one thread, 1000 classes. Median (min to "
        f"max) of {latencies['rounds']} rounds, in which the networks take turns. Ratios are taken within each round."
    )


def cost_table(latencies: Mapping[str, Any]) -> str:
    """Return what the networks cost that run at every measured size, and the conditions, in Markdown."""
    sizes = latencies["sizes"]
    head = [
        "network",
        "`--model`",
        "parameters",
        "multiply-adds, 32 px",
        *(f"time, {size} px" for size in sizes),
    ]
    lines = [_cells(head), "|---|---|" + "---:|" * (len(head) - 2)]
    for row in NETWORKS:
        if all(row.model in networks for networks in sizes.values()):
            cost = model_cost(row.model, 10, 32)
            counts = [f"{cost.parameters / 1e6:.2f} M", f"{cost.multiply_adds / 1e6:.0f} M"]
            times = [_spread(networks[row.model]["ratio"]) for networks in sizes.values()]
            lines.append(_cells([row.label, f"`{row.model}`", *counts, *times]))
    note = f"Time: ratio to `{BASELINE}`. Parameters and multiply-adds: counted with 10 classes."
    return "\n\n".join(["\n".join(lines), f"{note} {latency_conditions(latencies)}"])


def _spread(figures: Mapping[str, float]) -> str:
    """Return a median with its range."""
    return f"{figures['median']:.2f} ({figures['low']:.2f} to {figures['high']:.2f})"


def ablation_table(folder: Path, model: str) -> str:
    """Return what each variant of the recipe came to, on held-out training images, in Markdown."""
    lines = ["| changed | settings | top-1 % |", "|---|---|---:|"]
    for variant, changes in VARIANTS.items():
        found = measured(folder, [f"{model}-{variant.replace(' ', '_')}-seed{seed}" for seed in SEEDS])
        lines.append(_cells([variant, f"`{' '.join(changes)}`" if changes else "", str(found)]))
    return "\n".join(lines)


def how(summaries: Sequence[Mapping[str, Any]]) -> str:
    """Return what the measured accuracies rest on."""
    if not summaries:
        return "igcv has not reproduced these accuracies yet."
    seen = {(s["machine"]["device"], s["machine"]["torch"], s["machine"]["python"]) for s in summaries}
    machines = "; ".join(
        f"{device}, torch {torch}, Python {python}" for device, torch, python in sorted(seen)
    )
    return (
        "Measured: after the last epoch; mean and standard deviation over the seeds, for one seed the binomial "
        f"standard error over the test images ({machines})."
    )


def plot(found: Sequence[Column], latencies: Mapping[str, float], path: Path) -> None:
    """Accuracy against parameters, multiply-adds and latency, published and measured.

    Args:
        found: what was measured.
        latencies: milliseconds of an image by network, where they are measured.
        path: the picture.
    """
    costs = {row.model: model_cost(row.model, 10, 32) for row in NETWORKS}
    places = {
        "parameters (M)": {model: cost.parameters / 1e6 for model, cost in costs.items()},
        "multiply-adds (M), 32 px": {model: cost.multiply_adds / 1e6 for model, cost in costs.items()},
        "ms per image, 32 px, measured": latencies,
    }
    figure = Figure(figsize=(13, 4.4), layout="constrained")
    for axes, (unit, at) in zip(figure.subplots(1, 3, sharey=True), places.items(), strict=True):
        for (label, points), colour in zip(_series(found).items(), COLOURS, strict=False):
            shown = [row for row in NETWORKS if row.model in at and row.model in points]
            for number, row in enumerate(shown):  # neighbors on both sides, so that few labels cover others
                place, side = (at[row.model], points[row.model][0]), ("right", "left")[number % 2]
                offset = (-6 if side == "right" else 6, 5)
                axes.annotate(row.label, place, offset, textcoords="offset points", fontsize=9, ha=side)
            fill = "none" if label == PUBLISHED else colour
            axes.errorbar(
                [at[row.model] for row in shown],
                [points[row.model][0] for row in shown],
                yerr=[points[row.model][1] for row in shown],
                **{"fmt": "o", "capsize": 3, "color": colour, "markerfacecolor": fill, "label": label},
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
    """Return mean and spread by network, of what is published and of what was measured on CIFAR-10."""
    published: dict[str, tuple[float, float]] = {
        row.model: tuple(row.published["cifar10"]) for row in NETWORKS if row.published
    }
    return {PUBLISHED: published} | {
        f"{column.label}, measured": {m: (f.mean, f.spread) for m, f in column.networks.items() if f.top1}
        for column in found
        if column.data == "cifar10"
    }


def with_results(page: str, text: str) -> str:
    """A page with `text` between the marks of the results."""
    before, mark, rest = page.partition(BEGIN)
    assert mark, "the page has no place for results"
    return f"{before}{BEGIN}{text}\n{END}{rest.partition(END)[2]}"


def _cells(texts: Iterable[str]) -> str:
    return f"| {' | '.join(texts)} |"
