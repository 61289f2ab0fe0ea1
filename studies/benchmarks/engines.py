"""Time per image of IGCV3 and MobileNetV2 in mobile inference engines, in float32 on one thread.

A process per engine and image size runs all networks in random order in each round. The times are CPU times of that
process. First, some rounds of all forms choose the best form of each network. Further rounds then measure the literal
form and the best form. The weights are random, because their values do not change the time. Before it is measured,
every network is compared with PyTorch.

    python -m studies.benchmarks.engines
    python -m studies.benchmarks.engines --engines litert ncnn    # keeps the results of other engines

Requires igcv[deploy,litert,ncnn,executorch], and MNN for the engine of this name. Skips engines that are not installed.
"""

import argparse
import json
import multiprocessing
import platform
import sys
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import torch

from studies.benchmarks.conditions import earlier_rows, host_and_versions
from studies.benchmarks.engines_page import page
from studies.benchmarks.engines_timing import MEASURED, THREADS, Setting, measure, obstacle

NAME = "engines_cpu"
SIZES = (224, 32)
PACKAGES = ("torch", "numpy", "onnx", *(engine.package for engine in MEASURED.values()))


def run(settings: Sequence[Setting], out: Path) -> None:
    """Measure settings. Write the results after each setting, in place of its earlier results."""
    about = {"architecture": platform.machine(), **host_and_versions(packages=PACKAGES)}
    rows = earlier_rows(out / f"{NAME}.json", about)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, max_tasks_per_child=1) as processes:
        for setting in settings:
            title = MEASURED[setting.engine].title
            print(f"{title}, {setting.size} px", file=sys.stderr, flush=True)
            new = processes.submit(measure, setting).result()
            rows = replaced(rows, setting, new)
            result = {"machine": about, "rows": rows}
            (out / f"{NAME}.json").write_text(json.dumps(result, indent=1) + "\n")
            (out / f"{NAME}.md").write_text(page(result))


def replaced(
    rows: Sequence[dict[str, Any]], setting: Setting, new: Sequence[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Return the rows, sorted, with new rows of a setting in place of its earlier rows."""
    others = [row for row in rows if (row["engine"], row["size"]) != (setting.engine, setting.size)]
    return sorted([*others, *new], key=lambda row: (-row["size"], [*MEASURED].index(row["engine"])))


def available(engines: Sequence[str]) -> list[str]:
    """Return the engines that can be measured, and print why the others are skipped."""
    obstacles = {engine: obstacle(engine) for engine in engines}
    for engine, reason in obstacles.items():
        if reason:
            print(f"skipping {MEASURED[engine].title}: {reason}", file=sys.stderr, flush=True)
    return [engine for engine, reason in obstacles.items() if not reason]


def main() -> None:
    """Measure the networks and write results/engines_cpu.json and .md."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=31, help="measurement rounds (default: 31)")
    parser.add_argument(
        "--choice-rounds", type=int, default=15, help="rounds that choose the best forms (default: 15)"
    )
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        default=SIZES,
        choices=SIZES,
        help="image sides in pixels (default: both)",
    )
    parser.add_argument(
        "--engines",
        nargs="+",
        default=[*MEASURED],
        choices=[*MEASURED],
        help="inference engines (default: all)",
    )
    default = Path(__file__).parent / "results"
    parser.add_argument("--out", type=Path, default=default, help="results folder (default: results)")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(THREADS)  # the number in the results
    run(
        [
            Setting(engine, size, given.choice_rounds, given.rounds)
            for engine in available(given.engines)
            for size in given.sizes
        ],
        given.out,
    )


if __name__ == "__main__":
    main()
