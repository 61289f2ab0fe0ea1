"""Result tables of docs/reliability.md, written from the results of the campaigns."""

import json
from pathlib import Path
from typing import Any

from igcv.terminal import counted
from studies.markdown import replaced

PAGE = Path(__file__).parents[2] / "docs" / "reliability.md"
RESULTS = Path(__file__).parent / "results"
BEGIN, END = "<!-- results: written by python -m studies.soak -->\n", "<!-- end of results -->\n"


def with_figures(page: str) -> str:
    """Return the text of the page with the current results."""
    results = {path.stem: json.loads(path.read_text()) for path in sorted(RESULTS.glob("*.json"))}
    rows = [row for name, make in ROWS.items() if name in results for row in make(results[name]["found"])]
    table = ["| test | count | result | command |", "|---|---:|---|---|", *rows]
    notes = [_measured(name, result) for name, result in results.items()]
    return replaced(page, BEGIN, END, "\n" + "\n".join([*table, "", *notes, ""]))


def _kills(found: dict[str, Any]) -> list[str]:
    rows = []
    for processes, came_to in found.items():
        signals = ", ".join(f"{count} {name}" for name, count in sorted(came_to["kills"].items()))
        who = "one process" if processes == "1" else f"{processes} processes, one or more of them killed"
        runs = came_to["runs"]
        same = f"{runs - came_to['different']} of {runs} runs bitwise identical to an uninterrupted run"
        rows.append(
            f"| `igcv train` killed at random moments, {who} | {sum(came_to['kills'].values())} ({signals}) | {same}; "
            f"resumed {came_to['in_epoch']} times in the middle of an epoch | `python -m studies.soak kills` |"
        )
    return rows


def _faults(found: dict[str, Any]) -> list[str]:
    disks, checkpoints = found["disks"], found["checkpoints"]
    how = "`python -m studies.soak faults` (as root)"
    return [
        f"| {what} | {done['tried']} | {done['same']} runs bitwise identical to an uninterrupted run | {how} |"
        for what, done in (
            ("disk full during training, then enlarged", disks),
            ("newest checkpoint truncated, emptied, changed or removed", checkpoints),
        )
    ]


def _fuzz(found: dict[str, Any]) -> list[str]:
    return [
        f"| mutated files for the reader `{name}` | {result['inputs']:,} | "
        f"{'FAILED' if result['broken'] else 'each a correct result or `InputError`'} | `python -m studies.soak fuzz` |"
        for name, result in found.items()
    ]


def _coverage(found: dict[str, Any]) -> list[str]:
    lines = 100 * found["covered_lines"] / found["num_statements"]
    branches = 100 * found["covered_branches"] / found["num_branches"]
    return [
        f"| coverage of the test suite | {found['num_statements']:,} statements, {found['num_branches']:,} branches | "
        f"{lines:.1f} % of the statements, {branches:.1f} % of the branches | `python -m studies.soak coverage` |"
    ]


ROWS = {"kills": _kills, "faults": _faults, "fuzz": _fuzz, "coverage": _coverage}


def _measured(name: str, result: dict[str, Any]) -> str:
    host = result["machine"]
    return (
        f"- {name}: measured {host['date']} in {result['seconds'] / 60:.0f} minutes; {host['processor']}, "
        f"{host['cores']} cores, Python {host['python']}, torch {host['torch']}, igcv {host['igcv']}, "
        f"{counted(host['threads'], 'thread')} per process"
    )
