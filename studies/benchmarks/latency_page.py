"""The page of the latency benchmark."""

from typing import Any

import numpy as np

from igcv.deploy.latency import Latency, ratios
from studies.benchmarks.latency_entries import BASELINE, INT8, KEPT, LITERAL, OTHERS, OURS
from studies.benchmarks.spreads import spread, with_range

Place = tuple[int, str, int, int]  # size, engine, batch, threads
PACKAGES = ("python", "igcv", "torch", "torchvision", "timm", "pytorchcv", "onnxruntime", "openvino")
# target by (engine, batch, threads): longest time at 224 pixels, as a ratio to MobileNetV2 exported the same way
TARGETS = {
    **{(engine, 1, 1): 1.15 for engine in ("onnx", "openvino")},
    **{(engine, 16, 2): 1.10 for engine in ("onnx", "openvino")},
    **{("torch", 16, threads): 1.0 for threads in (1, 2)},
}


def place_of(r: dict[str, Any]) -> Place:
    """The setting that a row was measured in."""
    return r["size"], r["engine"], r["batch"], r["threads"]


def row(
    result: dict[str, Any], label: str, engine: str, size: int, batch: int, threads: int
) -> Latency | None:
    """Return what was measured of an entry."""
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
        f"Measured {' and '.join(dates)}: {about['processor']}, {about['cores']} cores, float32 but for int8. Every "
        f"section is a run of its own; medians over {' or '.join(map(str, rounds))} rounds, smallest and largest in "
        "brackets. Ratios are taken within each round. Written by `python studies/benchmarks/latency.py`.",
        "",
        "Versions: " + ", ".join(f"{k} {v}" for k, v in about.items() if k in PACKAGES) + ". Matrix product of 1024: "
        + ", ".join(f"{rate:.0f} GFLOP/s with {threads} thread(s)" for threads, rate in rates.items()) + ".",
    ]  # fmt: skip
    for place in dict.fromkeys(map(place_of, result["rows"])):
        size, engine, batch, threads = place
        lines += ["", f"## {engine}, {size} px, batch {batch}, {threads} thread(s)", ""]
        lines += ["| network | ms per batch | images/s | ratio to MobileNetV2 folded | MiB | matrix rate |"]
        lines += ["|---|---:|---:|---:|---:|---:|"]
        base = row(result, BASELINE, engine, size, batch, threads)
        for r in result["rows"]:
            if place_of(r) != place:
                continue
            found = row(result, r["label"], engine, size, batch, threads)
            assert found is not None and base is not None
            times = spread(found.times_ms, 2)
            share = "" if found.share is None else f"{100 * found.share:.0f} %"
            cells = (r["label"], times, f"{found.images_per_s:,.1f}", with_range(*ratios(found, base)))
            lines.append(f"| {' | '.join(cells)} | {found.memory_mib:,.0f} | {share} |")
    return "\n".join(
        [*lines, "", "## Aims", "", *target_table(result), "", "![Time of an image](latency_cpu.png)", ""]
    )


def target_table(result: dict[str, Any]) -> list[str]:
    """Return the targets at 224 pixels next to the measured ratios."""
    lines = [
        "| engine, batch, threads | IGCV3-D 1.0x | against | aim | measured |",
        "|---|---|---|---:|---:|",
    ]
    for (engine, batch, threads), target in TARGETS.items():
        place = (engine, 224, batch, threads)
        ours, base, literal = (row(result, label, *place) for label in (OURS, BASELINE, LITERAL))
        kept = [row(result, label + KEPT, *place) for label in (OURS, BASELINE)]
        theirs = row(result, OTHERS[-1], *place) if engine == "torch" else None
        for what, of, against, to, most in (
            ("folded", ours, "MobileNetV2 folded", base, f"at most {target:.2f}"),
            ("folded", ours, "its own literal form", literal, "at most 1"),
            (
                "folded, freed memory kept",
                kept[0],
                "MobileNetV2 folded, likewise",
                kept[1],
                f"at most {target:.2f}",
            ),
            ("folded", ours, "pytorchcv igcv3_w1", theirs, "at most 0.33"),
            ("int8", row(result, INT8, *place), "folded, in float32", ours, "less than 1"),
        ):
            if of and to:
                cells = (f"{engine}, {batch}, {threads}", what, against, most, with_range(*ratios(of, to)))
                lines.append(f"| {' | '.join(cells)} |")
    return lines
