"""Latency of IGCV3 as trained, folded and in int8, compared with MobileNetV2 and other implementations.

Each network runs in its own process; the processes take turns (see igcv.deploy.latency). The weights are random,
because their values do not change the time. `igcv.fold` selects the form of igcv's networks (IGCV3 and MobileNetV2) on
this machine, for the same batch size and threads. torch.onnx.export exports other implementations; in PyTorch, they run
unchanged.

    python studies/benchmarks/latency.py                     # some 50 minutes on two cores
    python studies/benchmarks/latency.py --quick             # two settings per image size
    python studies/benchmarks/latency.py --engines onnx      # keeps the results of other engines

Requires igcv[deploy] and onnxscript. Includes pytorchcv if it is installed (pip install pytorchcv).
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

from igcv.deploy.latency import matrix_rate, time_networks
from studies.benchmarks.conditions import earlier_rows, host_and_versions
from studies.benchmarks.latency_entries import ENGINES_MEASURED, entries
from studies.benchmarks.latency_page import Place, page, place_of
from studies.benchmarks.latency_plot import plot

SETTINGS = [(batch, threads) for batch in (1, 16) for threads in (1, 2)]
QUICK = [(1, 1), (16, 2)]


def run(rounds: int, places: list[Place], out: Path) -> None:
    """Measure settings. Write the results after each setting, in place of its earlier results."""
    about = host_and_versions()
    rates = {str(threads): matrix_rate(threads) / 1e9 for threads in sorted({place[-1] for place in places})}
    rows = earlier_rows(out / "latency_cpu.json", about)
    with tempfile.TemporaryDirectory() as folder:
        for size, engine, batch, threads in places:
            print(f"{engine}, {size} px, batch {batch}, {threads} threads", file=sys.stderr, flush=True)
            entered = entries(engine, size, batch, threads, Path(folder))
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
            rows.sort(
                key=lambda r: (-r["size"], ENGINES_MEASURED.index(r["engine"]), r["batch"], r["threads"])
            )
            result = {"machine": about, "matmul_gflop_per_s": rates, "rows": rows}
            (out / "latency_cpu.json").write_text(json.dumps(result, indent=1) + "\n")
            (out / "latency_cpu.md").write_text(page(result))
    plot(result, out / "latency_cpu.png")


def main() -> None:
    """Measure the networks and write results/latency_cpu.json, .md and .png."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="measurement rounds (default: 15)")
    parser.add_argument(
        "--quick", action="store_true", help="only batch 1 with 1 thread and batch 16 with 2 threads"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=[224, 32],
        choices=[224, 32],
        help="image sides in pixels (default: both)",
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        default=ENGINES_MEASURED,
        choices=ENGINES_MEASURED,
        help="inference engines (default: all)",
    )
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).parent / "results",
        help="results folder (default: results)",
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
