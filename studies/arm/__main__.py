"""Check of exported files on ARM's kernels, in QEMU's user-mode emulation: results and instructions, never times.

    studies/arm/root.sh DIR
    python -m studies.arm run DIR
    python -m studies.arm report

`run` skips files that are already in the results. It runs a short set of files, with --full all of them.
"""

import json
import re
import subprocess
import tempfile
import time
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Annotated, Any

import torch
import typer

from igcv.data import DataSource
from igcv.data.sources.open import open_source
from igcv.errors import InputError
from igcv.writing import write_file
from studies.arm.emulation import outcome
from studies.arm.page import page
from studies.arm.plan import SUBJECTS, Case, cases
from studies.arm.subjects import Prepared, prepared
from studies.benchmarks.conditions import host_and_versions

RESULTS = Path(__file__).parents[1] / "results" / "arm.json"
PHOTOGRAPHS = "two photographs of scikit-learn"

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def run(
    root: Annotated[Path, typer.Argument(metavar="DIR", help="folder that root.sh prepared")],
    full: Annotated[bool, typer.Option(help="every form in every precision; hours")] = False,
    only: Annotated[
        list[str] | None,
        typer.Option(
            help="patterns of NETWORK/PIXELS/ENGINE/FORM/PRECISION, as '*/224/ncnn/*'; default: all"
        ),
    ] = None,
    photos: Annotated[
        Path | None, typer.Option(help=f"folder of photographs; default: {PHOTOGRAPHS}")
    ] = None,
    minutes: Annotated[float, typer.Option(help="start no further file after this time")] = float("inf"),
    out: Annotated[Path, typer.Option(help="results file")] = RESULTS,
) -> None:
    """Export the missing files, run them in the emulator, and store each result immediately."""
    check_root(root)
    torch.set_num_threads(1)
    source, begun = open_source(f"folder:{photos}") if photos else None, time.monotonic()
    about = {
        **host_and_versions(),
        "emulator": emulator(),
        "photographs": photos.name if photos else PHOTOGRAPHS,
    }
    for case, ready in work(full, source):
        found = stored(out)
        if case.key in found["rows"] or not any(fnmatchcase(case.key, pattern) for pattern in only or "*"):
            continue
        if time.monotonic() - begun > 60 * minutes:
            typer.echo(f"stopped after {minutes:g} minutes; run the command again to continue")
            return
        with tempfile.TemporaryDirectory() as folder:
            row = outcome(case, ready, root, Path(folder))
        typer.echo(f"{case.key}: {json.dumps(row)}")
        rows = {**found["rows"], case.key: row}
        write_file(out, (json.dumps({"machine": about, "rows": rows}, indent=1) + "\n").encode())


def work(full: bool, photos: DataSource | None) -> list[tuple[Case, Prepared]]:
    """Return the files of all networks in the order of their importance, each with its network."""
    ready = {subject: prepared(subject, photos) for subject in SUBJECTS}
    found = [(case, ready[s]) for s in SUBJECTS for case in cases(s, ready[s].classifier.model, full)]
    return sorted(found, key=lambda pair: pair[0].rank)


@app.command()
def report(
    out: Annotated[Path, typer.Option(help="results file; the page has the same name, with .md")] = RESULTS,
) -> None:
    """Write the page."""
    write_file(out.with_suffix(".md"), page(stored(out)).encode())


def check_root(root: Path) -> None:
    """Raise InputError unless root.sh prepared a folder."""
    if not (root / "python").is_file():
        raise InputError(
            f"DIR: got '{root}', expected a folder with the file python. Run studies/arm/root.sh {root}"
        )


def emulator() -> str:
    """Return the name and version of the emulator."""
    said = subprocess.run(["qemu-aarch64", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version ([\d.]+)", said)
    return f"QEMU {found[1]}" if found else said.splitlines()[0]


def stored(file: Path) -> Mapping[str, Any]:
    """Return the stored results."""
    return json.loads(file.read_text()) if file.is_file() else {"rows": {}}


if __name__ == "__main__":
    app()
