"""Page of the latency benchmark."""

from typing import Any

import numpy as np

from igcv.deploy.latency import Latency, ratios
from igcv.terminal import counted
from studies.benchmarks.latency_entries import BASELINE, INT8, KEPT, LITERAL, OTHERS, OURS
from studies.benchmarks.spreads import spread, with_range

Place = tuple[int, str, int, int]  # size, engine, batch, threads
THROUGHPUT = "% of matrix-multiply throughput"
PACKAGES = ("python", "igcv", "torch", "torchvision", "timm", "pytorchcv", "onnxruntime", "openvino")
# (engine, batch, threads) -> target: highest ratio of time to MobileNetV2 at 224 pixels, exported the same way
TARGETS = {
    **{(engine, 1, 1): 1.15 for engine in ("onnx", "openvino")},
    **{(engine, 16, 2): 1.10 for engine in ("onnx", "openvino")},
    **{("torch", 16, threads): 1.0 for threads in (1, 2)},
}


def place_of(r: dict[str, Any]) -> Place:
    """Return the setting of a row."""
    return r["size"], r["engine"], r["batch"], r["threads"]


def row(
    result: dict[str, Any], label: str, engine: str, size: int, batch: int, threads: int
) -> Latency | None:
    """Return the latency of an entry, or None if the entry was not measured."""
    where = {"label": label, "engine": engine, "size": size, "batch": batch, "threads": threads}
    found = next((r for r in result["rows"] if where.items() <= r.items()), None)
    if found is None:
        return None
    times = tuple(found["times_ms"])
    return Latency(label, times, 1e3 * batch / float(np.median(times)), found["memory_mib"], found["share"])


def page(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    about, rates = result["machine"], result["matmul_gflop_per_s"]
    dates = sorted({r["date"] for r in result["rows"]})
    rounds = sorted({len(r["times_ms"]) for r in result["rows"]})
    lines = [
        "# Latency on a CPU",
        "",
        f"Measured {' and '.join(dates)}: {about['processor']}, {about['cores']} cores, float32 except for int8. Each "
        f"section is a separate run. Median (min to max) of {' or '.join(map(str, rounds))} rounds. Ratios are taken "
        "within each round. Written by `python studies/benchmarks/latency.py`.",
        "",
        "literal: the papers' layers, unchanged. folded: batch norms and permutations merged into the convolutions, in "
        "the fastest form on this machine. int8: folded and quantized. Networks of other projects run unchanged in "
        "PyTorch; torch.onnx.export exports them for the other engines.",
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in about.items() if k in PACKAGES) + ". Matrix-multiply "
        "throughput (1024 x 1024): "
        + ", ".join(f"{rate:.0f} GFLOP/s with {counted(int(n), 'thread')}" for n, rate in rates.items()) + ".",
    ]  # fmt: skip
    for place in dict.fromkeys(map(place_of, result["rows"])):
        size, engine, batch, threads = place
        lines += ["", f"## {engine}, {size} px, batch {batch}, {counted(threads, 'thread')}", ""]
        lines += [f"| network | ms per batch | images/s | ratio to {BASELINE} | memory, MiB | {THROUGHPUT} |"]
        lines += ["|---|---:|---:|---:|---:|---:|"]
        base = row(result, BASELINE, engine, size, batch, threads)
        for r in result["rows"]:
            if place_of(r) != place:
                continue
            found = row(result, r["label"], engine, size, batch, threads)
            assert found is not None and base is not None
            times = spread(found.times_ms, 2)
            share = "" if found.share is None else f"{100 * found.share:.0f}"
            cells = (r["label"], times, f"{found.images_per_s:,.1f}", with_range(*ratios(found, base)))
            lines.append(f"| {' | '.join(cells)} | {found.memory_mib:,.0f} | {share} |")
    return "\n".join(
        [*lines, "", "## Targets", "", *target_table(result), "", "![Time per image](latency_cpu.png)", ""]
    )


def target_table(result: dict[str, Any]) -> list[str]:
    """Return the targets at 224 pixels next to the measured ratios."""
    lines = [
        "| engine, batch, threads | igcv3_d_100 | compared with | target for the ratio | measured |",
        "|---|---|---|---:|---:|",
    ]
    for (engine, batch, threads), target in TARGETS.items():
        place = (engine, 224, batch, threads)
        ours, base, literal = (row(result, label, *place) for label in (OURS, BASELINE, LITERAL))
        kept = [row(result, label + KEPT, *place) for label in (OURS, BASELINE)]
        theirs = row(result, OTHERS[-1], *place) if engine == "torch" else None
        for what, of, against, to, most in (
            ("folded", ours, "MobileNetV2 folded", base, f"at most {target:.2f}"),
            ("folded", ours, "its literal form", literal, "at most 1"),
            (
                f"folded{KEPT}",
                kept[0],
                f"MobileNetV2 folded{KEPT}",
                kept[1],
                f"at most {target:.2f}",
            ),
            ("folded", ours, "pytorchcv igcv3_w1", theirs, "at most 0.33"),
            ("int8", row(result, INT8, *place), "its folded float32 form", ours, "less than 1"),
        ):
            if of and to:
                cells = (f"{engine}, {batch}, {threads}", what, against, most, with_range(*ratios(of, to)))
                lines.append(f"| {' | '.join(cells)} |")
    return lines
