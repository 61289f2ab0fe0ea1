"""Page of the training benchmark."""

from collections.abc import Iterator
from pathlib import Path
from statistics import median
from typing import Any

from studies.benchmarks.spreads import spread

BF16_TARGETS = (  # on a CPU: image size, network, compared network, target for the speedup
    (32, "igcv3_d_p50, auto", "mobilenetv2_100", 1.3),
    (32, "igcv3_d_half, auto", "mobilenetv2_100", 1.1),
    (32, "igcv3_d_100, auto", "mobilenetv2_100", 0.75),
)
TARGETS = (  # image size, network, compared network, target for the speedup
    (224, "igcv3_d_100, auto", "pytorchcv igcv3_w1, default malloc", 2.2),
    (224, "igcv3_d_100, auto", "pytorchcv igcv3_w1, channels first, default malloc", 2.2),
    (224, "igcv3_d_100, auto", "pytorchcv igcv3_w1", 2.2),
    (32, "igcv3_d_100, auto", "igcv3_d_100, literal, default malloc", 2.5),
    (32, "igcv3_d_100, auto", "igcv3_d_100, literal", 2.5),
    (32, "igcv3_d_100, auto", "mobilenetv2_100", 0.8),
    (224, "igcv3_d_100, auto", "mobilenetv2_100", 0.8),
    (32, "igcv3_d_100, auto, default malloc", "mobilenetv2_100, default malloc", 0.8),
    (224, "igcv3_d_100, auto, compiled", "pytorchcv igcv3_w1, compiled", 2.0),
    (224, "igcv3_d_100, auto, compiled", "mobilenetv2_100, compiled", 0.8),
    (32, "igcv3_d_100, auto, compiled", "mobilenetv2_100, compiled", 0.8),
)


def page(result: dict[str, Any], method: str) -> str:
    """Return the results as Markdown; `method` describes the measurement."""
    lines = [
        "# Training steps: images per second",
        "",
        method,
        "",
    ]
    lines += [", ".join(f"{key} {value}" for key, value in result["machine"].items()), ""]
    on_bf16 = result["machine"].get("precision") == "bf16" and "gpu" not in result["machine"]
    lines += ["## Targets", "", "| pixels | network | compared with | ratio of images/s | target |"]
    lines += ["|---|---|---|---|---|"]
    for size, ours, theirs, wanted in BF16_TARGETS if on_bf16 else TARGETS:
        found = ratio(result["sizes"].get(str(size), []), ours, theirs)
        if found:
            lines.append(f"| {size} | {ours} | {theirs} | {found} | {wanted} |")
    for size, rows in result["sizes"].items():
        lines += ["", f"## {size} x {size} pixels, batch {rows[0]['batch']}", ""]
        lines += main_table(rows, "mobilenetv2_100")
        if any(row["before"] for row in rows):
            lines += ["", "### Before and after the fixes", "", *before_table(rows)]
        if profiles := [row for row in rows if "profile" in row and not row["before"]]:
            lines += ["", "### Time by kind of call", "", *profile_table(profiles)]
    lines += ["", "## Lower bounds of the time", "", *ceiling_table(result)]
    for what, rows in result["growth"].items():
        lines += ["", f"## Scaling with {what}", "", *scaling_table(rows, what)]
    return "\n".join(lines) + "\n"


def ratio(rows: list[dict[str, Any]], ours: str, theirs: str) -> str | None:
    """Return the ratio of images per second of two labels, taken within each round; None if one is missing."""
    rates = {row["label"]: row["rates"] for row in rows}
    if not {ours, theirs} <= rates.keys():
        return None
    return spread([a / b for a, b in zip(rates[ours], rates[theirs], strict=True)], 2)


def main_table(rows: list[dict[str, Any]], reference: str) -> Iterator[str]:
    """Yield the table of all entries at one image size."""
    yield f"| network | images/s | ratio to {reference} | peak memory, MiB |"
    yield "|---|---|---|---|"
    for row in rows:
        times = ratio(rows, row["label"], reference)
        yield f"| {row['label']} | {spread(row['rates'])} | {times} | {row['memory_mib']:,} |"


def before_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of the compared networks with and without the fixes."""
    rates = {row["label"]: row["rates"] for row in rows}
    reference = "mobilenetv2_100"
    yield f"| network | images/s before | images/s after | speedup | ratio to {reference}, both after |"
    yield "|---|---|---|---|---|"
    for label, measured in rates.items():
        if f"{label}, before" in rates:
            before, gain = rates[f"{label}, before"], ratio(rows, label, f"{label}, before")
            times = ratio(rows, label, reference)
            yield f"| {label} | {spread(before)} | {spread(measured)} | {gain} | {times} |"


def profile_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Yield the table of milliseconds per step by kind of call."""
    labels = [row["label"] for row in rows]
    kinds = {
        kind: sum(row["profile"].get(kind, 0.0) for row in rows) for row in rows for kind in row["profile"]
    }
    yield "Milliseconds per step, measured with torch.profiler, which adds overhead to each call:"
    yield ""
    yield f"| kind of call | {' | '.join(labels)} |"
    yield f"|---|{'---|' * len(labels)}"
    for kind in sorted(kinds, key=lambda kind: -kinds[kind]):
        cells = [f"{row['profile'].get(kind, 0.0):.0f}" for row in rows]
        yield f"| {kind} | {' | '.join(cells)} |"
    sums = [f"{sum(row['profile'].values()):.0f}" for row in rows]
    yield f"| total | {' | '.join(sums)} |"


def scaling_table(rows: list[dict[str, Any]], what: str) -> Iterator[str]:
    """Yield the table of one scaling series."""
    if what == "size":
        yield (
            "The cost does not scale smoothly, because the strides depend on the image size. Up to 32 pixels, the "
            "first, second and last stride of 2 are 1. Up to 64 pixels, the first and last stride of 2 are 1."
        )
        yield ""
    yield f"| {what} | images/s | ms per image | peak memory, MiB |"
    yield "|---|---|---|---|"
    for row in rows:
        rate = median(row["rates"])
        yield f"| {row[what]} | {spread(row['rates'])} | {1e3 / rate:.2f} | {row['memory_mib']:,} |"


def ceiling_table(result: dict[str, Any]) -> Iterator[str]:
    """Yield the lower bounds of the time of a step on this machine."""
    limits, loads = result["ceilings"], result["loads"]
    yield (
        f"Measured in the same run: copy bandwidth {limits['copy_gb_per_s']} GB/s, matrix-multiply throughput "
        f"{limits['matmul_gflop_per_s']} GFLOP/s. The table lists the minimum operations per image of a training step, "
        "and the memory traffic of convolution outputs and their gradients:"
    )
    yield ""
    yield (
        "| network | pixels | GFLOP per image | ms at matrix-multiply throughput | MB per image "
        "| ms at copy bandwidth |"
    )
    yield "|---|---|---|---|---|---|"
    for row in loads:
        arithmetic = 1e3 * row["gflop"] / limits["matmul_gflop_per_s"]
        traffic = row["mb"] / limits["copy_gb_per_s"]
        yield (
            f"| {row['network']} | {row['size']} | {row['gflop']:.2f} | {arithmetic:.2f} | {row['mb']:.0f} "
            f"| {traffic:.2f} |"
        )
    yield ""
    for ours, theirs in zip(loads[::2], loads[1::2], strict=True):
        yield (
            f"At {ours['size']} pixels, {ours['network']} has {ours['gflop'] / theirs['gflop']:.2f} times the "
            f"operations of {theirs['network']}, but {ours['mb'] / theirs['mb']:.2f} times the memory traffic, because "
            "it has twice the blocks, each with its own expanded activations. Batch norms and permutations add passes "
            "over the activations. igcv's forms avoid the permutation and the passes of one of the "
            "two batch norms over the expanded channels. igcv has no such form for MobileNetV2."
        )


def plot(result: dict[str, Any], file: Path) -> None:
    """Plot the images per second as bars, with one panel per image size."""
    from matplotlib.figure import Figure

    sizes = result["sizes"]
    figure = Figure(figsize=(9, 0.9 + 0.27 * sum(map(len, sizes.values()))), layout="constrained")
    panels = figure.subplots(len(sizes), squeeze=False, height_ratios=[len(rows) for rows in sizes.values()])
    for axes, (size, rows) in zip(panels[:, 0], sizes.items(), strict=True):
        rows = sorted(rows, key=lambda row: median(row["rates"]))
        middles = [median(row["rates"]) for row in rows]
        below = [m - min(row["rates"]) for m, row in zip(middles, rows, strict=True)]
        above = [max(row["rates"]) - m for m, row in zip(middles, rows, strict=True)]
        colors = ["tab:blue" if row["form"] else "tab:gray" for row in rows]
        labels = [row["label"] for row in rows]
        axes.barh(labels, middles, xerr=[below, above], color=colors, ecolor="black", capsize=2)
        axes.set_title(f"{size} x {size} pixels, batch {rows[0]['batch']}", loc="left", fontsize=10)
        axes.set_xlabel("training images per second (median, min and max)")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)
