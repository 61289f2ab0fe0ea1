"""Command that runs the campaigns and writes the results to `results/` and docs/reliability.md."""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from studies.benchmarks.conditions import host_and_versions
from studies.soak.faults import damaged_checkpoints, full_disks
from studies.soak.kills import kill_runs
from studies.soak.lives import SETTINGS, run_once, settle
from studies.soak.page import PAGE, RESULTS, with_figures
from studies.soak.photos import write_digits
from studies.soak.readers import READERS

ROOT = Path(__file__).parents[2]


def kill_processes(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Kill runs with one, two and three processes at random moments."""
    data, found = write_digits(folder / "photos", train=24), {}
    for processes, count in ((1, given.kills), (2, given.kills), (3, given.kills // 2)):
        (folder / str(processes)).mkdir()
        found[str(processes)] = vars(kill_runs(data, folder / str(processes), processes, count, given.seed))
        print(found[str(processes)], flush=True)
    return found


def damage_and_resume(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Resume runs after full disks and damaged checkpoints."""
    data = write_digits(folder / "photos", train=24)
    status, said = run_once(SETTINGS, data, folder / "alone")
    assert status == 0, said
    expected = settle(folder / "alone")
    sizes = [1500 + 500 * i for i in range(given.disks)]
    return {
        "disks": {"tried": len(sizes), "same": full_disks(data, folder, expected, sizes)},
        "checkpoints": {
            "tried": given.checkpoints,
            "same": damaged_checkpoints(data, folder, expected, given.checkpoints, given.seed),
        },
    }


def fuzz_readers(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Feed each reader with mutated files."""
    found = {}
    for name in READERS:
        (folder / name).mkdir()
        command = [sys.executable, "-m", "studies.soak.fuzz", name, str(given.seconds), str(folder / name)]
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        inputs = re.search(r"stat::number_of_executed_units:\s*(\d+)", done.stderr)
        assert inputs, done.stderr[-2000:]
        found[name] = {"inputs": int(inputs[1]), "broken": int(done.returncode != 0)}
        if done.returncode:
            print(done.stderr[-3000:], file=sys.stderr)
    return found


def count_coverage(given: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Run all tests and count the covered lines and branches of `igcv`."""
    environment = os.environ | {"COVERAGE_FILE": str(folder / "coverage")}
    tests = ["make", "tests", "PYTEST_OPTIONS=--cov --cov-append --cov-report="]
    report = [sys.executable, "-m", "coverage", "json", "-o", str(folder / "coverage.json")]
    for command in (tests, report):
        subprocess.run(command, cwd=ROOT, env=environment, check=True)
    totals = json.loads((folder / "coverage.json").read_text())["totals"]
    return {
        key: totals[key] for key in ("covered_lines", "num_statements", "covered_branches", "num_branches")
    }


CAMPAIGNS: dict[str, Callable[[argparse.Namespace, Path], dict[str, Any]]] = {
    "kills": kill_processes,
    "faults": damage_and_resume,
    "fuzz": fuzz_readers,
    "coverage": count_coverage,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m studies.soak",
        description="Run the campaigns and write the results to studies/soak/results/ and docs/reliability.md.",
    )
    parser.add_argument(
        "campaigns", nargs="*", metavar="CAMPAIGN", help=f"campaigns to run (default: {' '.join(CAMPAIGNS)})"
    )
    kills = "number of kills with one process and with two processes; half as many with three (default: %(default)s)"
    parser.add_argument("--kills", type=int, default=60, help=kills)
    parser.add_argument("--disks", type=int, default=8, help="number of full disks (default: %(default)s)")
    parser.add_argument(
        "--checkpoints", type=int, default=30, help="number of damaged checkpoints (default: %(default)s)"
    )
    parser.add_argument(
        "--seconds", type=int, default=120, help="fuzzing time per reader, in seconds (default: %(default)s)"
    )
    parser.add_argument("--seed", type=int, default=0, help="random seed (default: %(default)s)")
    given = parser.parse_args()
    for name in given.campaigns:
        if name not in CAMPAIGNS:
            parser.error(f"CAMPAIGN: got '{name}', expected one of {', '.join(CAMPAIGNS)}")
    for name in given.campaigns or CAMPAIGNS:
        begun = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = CAMPAIGNS[name](given, Path(folder))
        measured = {
            "found": found,
            "seconds": round(time.monotonic() - begun),
            "machine": host_and_versions(),
        }
        RESULTS.mkdir(exist_ok=True)
        (RESULTS / f"{name}.json").write_text(json.dumps(measured, indent=2) + "\n")
        print(f"{name}: {json.dumps(found)}", flush=True)
    PAGE.write_text(with_figures(PAGE.read_text()))


if __name__ == "__main__":
    main()
