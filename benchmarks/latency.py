"""How long an image takes: IGCV3 as trained, folded and in int8, beside MobileNetV2 and other implementations.

Each contestant runs in a process of its own, in turns (see igcv.deploy.latency). Networks have random weights, which
cost what trained ones cost. Ours are folded in the form that `igcv.fold` chooses on this machine for the same batch and
threads, MobileNetV2 as well; the others are exported by torch.onnx.export, or run as they come.

    python benchmarks/latency.py                     # some 50 minutes on two cores
    python benchmarks/latency.py --quick             # two settings for each image size
    python benchmarks/latency.py --engines onnx      # results of other engines stay as they are

Needs igcv[deploy]; pytorchcv takes part where it is installed (pip install pytorchcv).
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from conditions import machine
from torch import nn
from training import NETWORKS

import igcv
from igcv.analysis import model_cost
from igcv.data.preprocessing import IMAGENET
from igcv.deploy.choose import choose_plan
from igcv.deploy.folding.plan import foldable_blocks, folded_network
from igcv.deploy.latency import Latency, LatencyEntry, matrix_rate, ratios, time_networks
from igcv.deploy.write import folded_for, write_network
from igcv.deploy.writers.onnx import onnx_graph
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.opened import open_session
from igcv.engines.session import Session
from igcv.engines.table import ENGINES
from igcv.weights.card import Card

matplotlib.use("Agg")
OURS, BASELINE = "igcv3_d_100 folded", "mobilenetv2_100 folded"
LITERAL, INT8, KEPT = "igcv3_d_100 literal", "igcv3_d_100 int8", ", freed memory kept"
OTHERS = ("torchvision mobilenet_v2", "timm mobilenetv2_100", "pytorchcv igcv3_w1")
SETTINGS = [(batch, threads) for batch in (1, 16) for threads in (1, 2)]
QUICK = [(1, 1), (16, 2)]
# what was aimed at: (engine, batch, threads): most time, as a ratio to MobileNetV2 exported the same way, at 224 pixels
AIMS = {
    **{(engine, 1, 1): 1.15 for engine in ("onnx", "openvino")},
    **{(engine, 16, 2): 1.10 for engine in ("onnx", "openvino")},
    **{("torch", 16, threads): 1.0 for threads in (1, 2)},
}


def folded(name: str, form: str, engine: str, size: int, batch: int, threads: int) -> nn.Module:
    """One of our networks for inference."""
    torch.manual_seed(0)
    model = igcv.create_model(name, input_size=size).eval()
    if form != "auto":
        return igcv.fold(model, form)
    return folded_network(model, foldable_blocks(model), choose_plan(model, engine, size, batch, threads))


def torch_session(build: Callable[[], nn.Module], threads: int) -> Session:
    """A network in PyTorch."""
    return ENGINES["torch"](build().eval(), threads)


@cache
def foreign_file(name: str, size: int, folder: Path) -> Path:
    """Another implementation, exported the usual way."""
    file = folder / f"{name.replace(' ', '_')}_{size}.onnx"
    images = torch.zeros(2, 3, size, size)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        shapes = ({0: torch.export.Dim("batch")},)
        torch.onnx.export(NETWORKS[name](size).eval(), (images,), file, dynamic_shapes=shapes, verbose=False)
    return file


def contestants(engine: str, size: int, batch: int, threads: int, folder: Path) -> list[LatencyEntry]:
    """Everybody who takes part in an engine."""
    found = []
    forms = (
        (LITERAL, "igcv3_d_100", "literal"),
        (OURS, "igcv3_d_100", "auto"),
        (BASELINE, "mobilenetv2_100", "auto"),
    )
    shape = (3, size, size)
    for label, name, form in forms:
        cost = model_cost(name, input_size=size).multiply_adds
        build = partial(folded, name, form, engine, size, batch, threads)
        network = build()  # measures forms now, so that the processes find them
        if engine == "torch":
            opener: Callable[[], Session] = partial(torch_session, build, threads)
            kept = LatencyEntry(label + KEPT, opener, shape, multiply_adds=cost, keeps_memory=True)
            found += [kept] if form == "auto" else []
        else:
            file = folder / f"{label.replace(' ', '_')}_{engine}_{size}_{batch}_{threads}.onnx"
            file.write_bytes(onnx_graph(network, torch.zeros(1, *shape)).SerializeToString())
            opener = partial(open_session, file, engine, threads)
        found.append(LatencyEntry(label, opener, shape, multiply_adds=cost))
    if engine != "torch":
        file = int8_file(engine, size, batch, threads, folder)
        found.append(LatencyEntry(INT8, partial(open_session, file, engine, threads), shape))
    for name in OTHERS:
        if name.startswith("pytorchcv") and (size != 224 or not find_spec("pytorchcv")):
            continue
        if engine == "torch":
            opener = partial(torch_session, partial(NETWORKS[name], size), threads)
        else:
            opener = partial(open_session, foreign_file(name, size, folder), engine, threads)
        found.append(LatencyEntry(name, opener, shape))
    return found


@cache
def int8_file(engine: str, size: int, batch: int, threads: int, folder: Path) -> Path:
    """Ours in int8, as `igcv export --int8` writes it, in the form that it measures for this setting."""
    torch.manual_seed(0)
    model = igcv.create_model("igcv3_d_100", input_size=size).eval()
    pre = replace(IMAGENET, input_size=size)
    card = Card(
        model="igcv3_d_100",
        num_classes=1000,
        input_size=size,
        strides=model.strides,
        preprocessing=pre.to_dict(),
    )
    pixels = np.random.default_rng(0).integers(0, 256, (8, size, size, 3), np.uint8)
    settings = ExportSettings(format=engine, int8=True, batch_size=batch, threads=threads)
    network = folded_for(igcv.Classifier(model, card), settings, pixels)
    file = folder / f"int8_{engine}_{size}_{batch}_{threads}{ENGINES[engine].suffix}"
    write_network(network, file, settings, pre, pixels)
    return file


Place = tuple[int, str, int, int]  # size, engine, batch, threads


def place_of(r: dict[str, Any]) -> Place:
    """The setting that a row was measured in."""
    return r["size"], r["engine"], r["batch"], r["threads"]


def earlier_rows(file: Path, about: dict[str, Any]) -> list[dict[str, Any]]:
    """What an earlier call measured on this machine with these versions, so that settings can be measured anew."""
    if not file.is_file():
        return []
    before = json.loads(file.read_text())
    same = {**before["machine"], "date": ""} == {**about, "date": ""}
    return before["rows"] if same else []


def run(rounds: int, places: list[Place], out: Path) -> None:
    """Measure some settings; what is there is written after each of them, in the place of earlier results of it."""
    about = machine()
    rates = {str(threads): matrix_rate(threads) / 1e9 for threads in sorted({place[-1] for place in places})}
    rows = earlier_rows(out / "latency_cpu.json", about)
    with tempfile.TemporaryDirectory() as folder:
        for size, engine, batch, threads in places:
            print(f"{engine}, {size} px, batch {batch}, {threads} threads", file=sys.stderr, flush=True)
            entered = contestants(engine, size, batch, threads, Path(folder))
            where = {
                "engine": engine,
                "size": size,
                "batch": batch,
                "threads": threads,
                "date": about["date"],
            }
            new = [
                {
                    **where,
                    "label": measured.label,
                    "times_ms": [round(time, 3) for time in measured.times_ms],
                    "memory_mib": round(measured.memory_mib),
                    "share": measured.share,
                }
                for measured in time_networks(entered, batch, threads, rounds)
            ]
            rows = [*(r for r in rows if place_of(r) != (size, engine, batch, threads)), *new]
            rows.sort(key=lambda r: (-r["size"], [*ENGINES].index(r["engine"]), r["batch"], r["threads"]))
            result = {"machine": about, "matmul_gflop_per_s": rates, "rows": rows}
            (out / "latency_cpu.json").write_text(json.dumps(result, indent=1) + "\n")
            (out / "latency_cpu.md").write_text(page(result))
    plot(result, out / "latency_cpu.png")


def row(
    result: dict[str, Any], label: str, engine: str, size: int, batch: int, threads: int
) -> Latency | None:
    """What was measured of a contestant."""
    where = {"label": label, "engine": engine, "size": size, "batch": batch, "threads": threads}
    found = next((r for r in result["rows"] if where.items() <= r.items()), None)
    if found is None:
        return None
    times = tuple(found["times_ms"])
    return Latency(label, times, 1e3 * batch / float(np.median(times)), found["memory_mib"], found["share"])


def spread(values: tuple[float, float, float]) -> str:
    """Median (smallest to largest)."""
    return f"{values[0]:.2f} ({values[1]:.2f} to {values[2]:.2f})"


def page(result: dict[str, Any]) -> str:
    """The results as Markdown."""
    about, rates = result["machine"], result["matmul_gflop_per_s"]
    dates = sorted({r["date"] for r in result["rows"]})
    rounds = sorted({len(r["times_ms"]) for r in result["rows"]})
    lines = [
        "# Latency on a CPU",
        "",
        f"Measured {' and '.join(dates)}: {about['processor']}, {about['cores']} cores, float32 but for int8. Every "
        f"section is a run of its own; medians over {' or '.join(map(str, rounds))} rounds, smallest and largest in "
        "brackets. Ratios are taken within each round. Written by `python benchmarks/latency.py`.",
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
            times = spread((found.median_ms, min(found.times_ms), max(found.times_ms)))
            share = "" if found.share is None else f"{100 * found.share:.0f} %"
            cells = (r["label"], times, f"{found.images_per_s:,.1f}", spread(ratios(found, base)))
            lines.append(f"| {' | '.join(cells)} | {found.memory_mib:,.0f} | {share} |")
    return "\n".join(
        [*lines, "", "## Aims", "", *aims(result), "", "![Time of an image](latency_cpu.png)", ""]
    )


PACKAGES = ("python", "igcv", "torch", "torchvision", "timm", "pytorchcv", "onnxruntime", "openvino")


def aims(result: dict[str, Any]) -> list[str]:
    """What was aimed at at 224 pixels, and what came out."""
    lines = [
        "| engine, batch, threads | IGCV3-D 1.0x | against | aim | measured |",
        "|---|---|---|---:|---:|",
    ]
    for (engine, batch, threads), aim in AIMS.items():
        place = (engine, 224, batch, threads)
        ours, base, literal = (row(result, label, *place) for label in (OURS, BASELINE, LITERAL))
        kept = [row(result, label + KEPT, *place) for label in (OURS, BASELINE)]
        theirs = row(result, OTHERS[-1], *place) if engine == "torch" else None
        for what, of, against, to, most in (
            ("folded", ours, "MobileNetV2 folded", base, f"at most {aim:.2f}"),
            ("folded", ours, "its own literal form", literal, "at most 1"),
            (
                "folded, freed memory kept",
                kept[0],
                "MobileNetV2 folded, likewise",
                kept[1],
                f"at most {aim:.2f}",
            ),
            ("folded", ours, "pytorchcv igcv3_w1", theirs, "at most 0.33"),
            ("int8", row(result, INT8, *place), "folded, in float32", ours, "less than 1"),
        ):
            if of and to:
                cells = (f"{engine}, {batch}, {threads}", what, against, most, spread(ratios(of, to)))
                lines.append(f"| {' | '.join(cells)} |")
    return lines


def plot(result: dict[str, Any], file: Path) -> None:
    """Milliseconds of an image for every contestant, a panel for each engine and setting, at 224 pixels."""
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
            axis.set_yticks([])  # the first panel of the row names them
        axis.spines[["top", "right"]].set_visible(False)
        axis.margins(x=0.2)
        axis.set_title(f"{engine}, batch {batch}, {threads} thread(s)", fontsize=9, loc="left")
        axis.set_xlabel("ms per image", fontsize=8)
    figure.tight_layout()
    figure.savefig(file, dpi=110)


def main() -> None:
    """Measure, and write results/latency_cpu.json, .md and .png."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="turns of each contestant (default: 15)")
    parser.add_argument("--quick", action="store_true", help="batch 1 on 1 thread and batch 16 on 2 only")
    parser.add_argument(
        "--sizes", type=int, nargs="+", default=[224, 32], choices=[224, 32], help="image sides, pixels"
    )
    parser.add_argument(
        "--engines", nargs="+", default=[*ENGINES], choices=[*ENGINES], help="engines to measure"
    )
    parser.add_argument(
        "--out", type=Path, default=Path(__file__).parent / "results", help="folder for the results"
    )
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = QUICK if arguments.quick else SETTINGS
    places = [
        (size, e, *setting) for size in arguments.sizes for e in arguments.engines for setting in settings
    ]
    run(arguments.rounds, places, arguments.out)


if __name__ == "__main__":
    main()
