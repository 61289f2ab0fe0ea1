"""Time per image, parameters and published accuracy of IGCV3 and today's small networks.

    python -m studies.comparison                  # measures, and writes docs/comparison.md
    python -m studies.comparison --engines onnx   # one engine; keeps the results of the other
    python -m studies.comparison --page           # only writes the page from stored results

A process per engine runs all networks in random order in each round, on one image and one thread. The times are CPU
times of that process. The weights are random, because their values do not change the time. Every network is first
compared with PyTorch. `make comparison` installs what this needs in an environment of its own and runs it.
"""

import argparse
import json
import multiprocessing
import platform
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from igcv.writing import write_file
from studies.benchmarks.conditions import host_and_versions
from studies.comparison.engines import CLASSES, ENGINES, THREADS, times_of
from studies.comparison.networks import NETWORKS, Network, multiply_adds, parameters
from studies.comparison.page import page_with
from studies.comparison.plot import plot
from studies.table.outcomes import columns

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "studies" / "results" / "comparison.json"
PICTURE = RESULTS.with_suffix(".png")
PAGE = ROOT / "docs" / "comparison.md"
PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    *(p for e in ENGINES.values() for p in (e.package, e.converter)),
)


def costs_of(network: Network) -> dict[str, int]:
    """Return the parameters and multiply-adds of a network."""
    built = network.build(CLASSES)
    return {
        "parameters": parameters(built),
        "parameters_10_classes": parameters(network.build(10)),
        "multiply_adds": multiply_adds(built),
    }


def run(engines: list[str], rounds: int) -> None:
    """Measure engines, and store each result at once."""
    torch.set_num_threads(THREADS)
    costs = {network.name: costs_of(network) for network in NETWORKS}
    for engine in engines:
        with ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as processes:
            times = processes.submit(times_of, engine, rounds).result()
        about = {"architecture": platform.machine(), **host_and_versions(packages=PACKAGES)}
        result = stored()
        result["costs"] = costs
        result["engines"][engine] = {"machine": about, "cpu_ms": times}
        write_file(RESULTS, (json.dumps(result, indent=1) + "\n").encode())


def stored() -> dict[str, Any]:
    """Return the stored results."""
    return json.loads(RESULTS.read_text()) if RESULTS.is_file() else {"costs": {}, "engines": {}}


def main() -> None:
    """Measure the networks, and write the results, the page and the plot."""
    parser = argparse.ArgumentParser(
        prog="python -m studies.comparison",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--rounds", type=int, default=31, help="measurement rounds (default: 31)")
    parser.add_argument(
        "--engines",
        nargs="+",
        default=[*ENGINES],
        choices=[*ENGINES],
        help="inference engines (default: all)",
    )
    parser.add_argument(
        "--page", action="store_true", help="measure nothing, only write the page and the plot"
    )
    given = parser.parse_args()
    if not given.page:
        run(given.engines, given.rounds)
    result = stored()
    plot(result, PICTURE)
    speed = json.loads((RESULTS.parent / "latency.json").read_text())["sizes"]["32"]
    write_file(PAGE, page_with(PAGE.read_text(), result, columns(RESULTS.parent), speed).encode())


if __name__ == "__main__":
    main()
