"""Tables of the README and page of all results, in Markdown, generated from the stored results."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from igcv.analysis import model_cost
from studies.benchmarks.spreads import with_range
from studies.markdown import replaced, table_row
from studies.table.outcomes import Column, read_measured
from studies.table.plan import BASELINE, NETWORKS, SEEDS, VARIANTS

BEGIN, END = "<!-- results: written by python -m studies.table report -->\n", "<!-- end of results -->\n"
DATA = ("cifar10", "cifar100")
IMAGENET = (  # arXiv:1806.00178, tables 4 and 5: parameters in millions, top-1 / top-5, top-1 / top-5 retrained
    ("MobileNetV2 1.0x", 3.4, "70.0 / 89.0", "71.4 / 90.1"),
    ("IGCV3-D 1.0x", 3.5, "70.6 / 89.7", "72.2 / 90.5"),
)
TINY = "tinyimagenet"
# Published by github.com/JunrQ/pytorch-cifar100, trained from scratch: top-1 in percent on the validation images.
TINY_BY_OTHERS = (("MobileNetV2", 48.26), ("EfficientNet", 57.34), ("ResNet-50", 66.21))


def measured_table(found: Sequence[Column]) -> str:
    """Return the measured accuracies and their conditions, in Markdown."""
    summaries = [summary for column in found for summary in column.summaries]
    if not summaries:
        return "igcv has not measured an accuracy yet."
    lines = [table_row(["network", "`--model`", *(column.label for column in found)])]
    lines.append("|---|---|" + "---:|" * len(found))
    for row in NETWORKS:
        figures = [str(column.networks[row.model]) for column in found]
        lines += [table_row([row.label, f"`{row.model}`", *figures])] if any(figures) else []
    seen = {(s["machine"]["device"], s["machine"]["torch"], s["machine"]["python"]) for s in summaries}
    machines = "; ".join(
        f"{device}, torch {torch}, Python {python}" for device, torch, python in sorted(seen)
    )
    note = (
        "Top-1 accuracy in percent after the last epoch: mean and standard deviation over the seeds; for one seed, the "
        f"binomial standard error over the test images ({machines}). The column names the data set, the recipe "
        f"and the epochs. {in_bf16(found)}No published accuracy has been reproduced yet."
    )
    return "\n\n".join(["\n".join(lines), note])


def in_bf16(found: Sequence[Column]) -> str:
    """Return a note on the trainings of earlier versions, which measured in the precision of the training."""
    early = [column.recipe for column in found if any("precision" not in s["last"] for s in column.summaries)]
    if "cifar_cpu" not in early:
        return ""
    return "The column `cifar_cpu` was measured in bf16; in float32, the same weights reach 92.86 %. "


def published_table() -> str:
    """Return the published accuracies on CIFAR, in Markdown."""
    head = ["network", "`--model`", "parameters", "parameters, IGCV3 paper"]
    head += ["CIFAR-10, IGCV3 paper", "CIFAR-100, IGCV3 paper", "CIFAR-10 / CIFAR-100, independent paper"]
    lines = [table_row(head), "|---|---|" + "---:|" * 5]
    for row in NETWORKS:
        if not (row.published or row.by_others):
            continue  # nothing is published
        parameters = " / ".join(f"{model_cost(row.model, n, 32).parameters / 1e6:.2f}" for n in (10, 100))
        listed = f"{row.published_parameters} M" if row.published_parameters else ""
        published = [
            "{0.mean:.2f} ± {0.deviation:.2f}".format(row.published[d]) if d in row.published else ""
            for d in DATA
        ]
        others = " / ".join(f"{row.by_others[d]:.2f}" for d in DATA) if row.by_others else ""
        lines.append(table_row([row.label, f"`{row.model}`", f"{parameters} M", listed, *published, others]))
    return "\n".join(lines)


def imagenet_table() -> str:
    """Return the published ImageNet accuracies, in Markdown."""
    lines = [
        "| network | parameters, IGCV3 paper | ImageNet top-1 / top-5 | after the retrain stage |",
        "|---|---:|---:|---:|",
    ]
    return "\n".join([*lines, *(table_row([name, f"{size} M", *rest]) for name, size, *rest in IMAGENET)])


def tables(found: Sequence[Column]) -> str:
    """Return the accuracy tables, measured and published, in Markdown."""
    published = (
        "Top-1 accuracy in percent. Parameters: counted by igcv, with 10 / 100 classes. IGCV3 paper: arXiv:1806.00178, "
        "mean and standard deviation of five runs; the training settings are not known. Its row 0.5x has half "
        "the parameters at full width, and its row 0.7x has 0.7 of the parameters. The paper gives no block counts for "
        "these rows, so the block counts are igcv's choice. Independent paper: arXiv:1905.03672, 400 epochs."
        " Retrain stage: a second training that starts with the weights of the first."
    )
    tiny = [tiny_line()] if any(column.data == TINY for column in found) else []
    return "\n\n".join(
        [
            *("### Accuracy, measured", measured_table(found)),
            *("### Accuracy, published", published_table(), imagenet_table(), published, *tiny),
        ]
    )


def tiny_line() -> str:
    """Return the accuracies on Tiny-ImageNet that others published, as a sentence."""
    listed = ", ".join(f"{name} {top1:.2f}" for name, top1 in TINY_BY_OTHERS)
    return f"Tiny-ImageNet, trained from scratch (github.com/JunrQ/pytorch-cifar100): {listed}."


def results_page(text: str, ablations: Mapping[str, Path], latencies: Mapping[str, Any] | None) -> str:
    """Return the page of all results, in Markdown."""
    parts = [
        "# Results",
        "Written by `python -m studies.table report` from the folders next to this file. Each training has a folder "
        "with its resolved recipe, its metrics log and its summary.",
        text.replace("### ", "## "),
        "![Accuracy versus parameters, multiply-adds and latency](accuracy.png)",
    ]
    for name, folder in ablations.items():
        models = sorted({path.name.partition("-")[0] for path in folder.iterdir()})
        parts += [f"## {name}, {model}\n\n{ablation_table(folder, model)}" for model in models]
    if latencies:
        parts += [latency_section(latencies)]
    return "\n\n".join(parts) + "\n"


def latency_section(latencies: Mapping[str, Any]) -> str:
    """Return the latencies measured by `python -m studies.table latency`, in Markdown."""
    parts = ["## Latency", latency_conditions(latencies)]
    for size, networks in latencies["sizes"].items():
        head = f"| {size} pixels | ms | ratio to `{BASELINE}` |\n|---|---:|---:|"
        rows = [
            table_row([f"`{model}`", _spread(t["ms"]), _spread(t["ratio"])]) for model, t in networks.items()
        ]
        parts.append("\n".join([head, *rows]))
    return "\n\n".join(parts)


def latency_conditions(latencies: Mapping[str, Any]) -> str:
    """Return the conditions of the latency measurement, in Markdown."""
    host = latencies["machine"]
    return (
        f"Measured {host['date']} on {host['processor']}, {host['cores']} shared cores: ONNX Runtime "
        f"{host['onnxruntime']}, float32, folded for inference (form `auto`), batch 1, one thread, 1000 classes. "
        f"Median (min to max) of {latencies['rounds']} interleaved rounds. Ratios are taken within each round."
    )


def cost_table(latencies: Mapping[str, Any]) -> str:
    """Return the costs of the networks that were measured at every image size, and the conditions, in Markdown."""
    sizes = latencies["sizes"]
    head = [
        "network",
        "`--model`",
        "parameters",
        "multiply-adds, 32 px",
        *(f"relative time, {size} px" for size in sizes),
    ]
    lines = [table_row(head), "|---|---|" + "---:|" * (len(head) - 2)]
    for row in NETWORKS:
        if all(row.model in networks for networks in sizes.values()):
            cost = model_cost(row.model, 10, 32)
            counts = [f"{cost.parameters / 1e6:.2f} M", f"{cost.multiply_adds / 1e6:.0f} M"]
            times = [_spread(networks[row.model]["ratio"]) for networks in sizes.values()]
            lines.append(table_row([row.label, f"`{row.model}`", *counts, *times]))
    note = (
        f"Relative time: time per image divided by that of `{BASELINE}`. Parameters and multiply-adds: counted with 10 "
        "classes."
    )
    return "\n\n".join(["### Speed, measured", "\n".join(lines), f"{note} {latency_conditions(latencies)}"])


def _spread(figures: Mapping[str, float]) -> str:
    """Return a median with its range."""
    return with_range(figures["median"], figures["low"], figures["high"])


def ablation_table(folder: Path, model: str) -> str:
    """Return the accuracy of each variant of the recipe on held-out training images, in Markdown."""
    lines = ["| variant | changed settings | top-1 % |", "|---|---|---:|"]
    for variant, changes in VARIANTS.items():
        found = read_measured(folder, [f"{model}-{variant.replace(' ', '_')}-seed{seed}" for seed in SEEDS])
        lines.append(table_row([variant, f"`{' '.join(changes)}`" if changes else "", str(found)]))
    return "\n".join(lines)


def with_results(page: str, text: str) -> str:
    """Return a page with `text` between the markers of the results."""
    return replaced(page, BEGIN, END, text)
