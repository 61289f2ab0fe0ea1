"""Comparison of trainings on small photo sets: `python -m studies.photos`."""

import csv
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

import igcv
from igcv.errors import InputError
from igcv.report.run import images_of
from igcv.training.recipe_file import load_recipe
from igcv.training.run import RECIPE, SUMMARY
from igcv.weights.pretrained import photo_weights
from igcv.writing import write_file
from studies.benchmarks.conditions import host_and_versions
from studies.photos.page import page_with, table
from studies.photos.plan import BY_HAND, HAND_RECIPE, METHODS, SETS, TIMM_MODEL, PhotoSet
from studies.photos.sets import in_parts, laid_out

ROOT = Path(__file__).parents[2]
RESULTS, PAGE = ROOT / "studies" / "results" / "photos.json", ROOT / "docs" / "train.md"
CHOSEN = ("model", "input_size", "batch_size", "lr", "epochs", "ema_decay")  # settings in the second table
TRACK_S = 5  # seconds between checks of a script with a time limit

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)


@app.command()
def run(
    photos: Annotated[Path, typer.Option(help="folder with flower_photos/ and hymenoptera_data/")],
    only: Annotated[list[str] | None, typer.Option(help="photo sets; default: all")] = None,
    method: Annotated[list[str] | None, typer.Option(help=f"{', '.join(METHODS)}; default: all")] = None,
    timm: Annotated[Path | None, typer.Option(help="checkout of timm with train.py")] = None,
    seeds: Annotated[int, typer.Option(help="number of seeds per training", min=1)] = 1,
    place: Annotated[Path, typer.Option(help="folder for run folders and links")] = ROOT / "runs" / "study",
) -> None:
    """Run the missing trainings one after the other, and store each result immediately."""
    place.mkdir(parents=True, exist_ok=True)
    for seed in range(seeds):
        for wanted in (s for s in SETS if not only or s.name in only):
            for name in (m for m in METHODS if not method or m in method):
                key = f"{wanted.name}/{name}/{seed}"
                if key in stored()["rows"] or (why := hindrance(wanted, name, timm)):
                    typer.echo(
                        f"{key}: skipped, {'already in the results' if key in stored()['rows'] else why}"
                    )
                    continue
                folder = laid_out(wanted, photos, place / "data")
                typer.echo(f"{key}: {wanted.minutes:g} minutes")
                keep(key, trained(wanted, name, folder, place / key.replace("/", "-"), seed, timm))


@app.command()
def report() -> None:
    """Write the tables to the page "Train on your own images"."""
    write_file(PAGE, page_with(PAGE.read_text(), table(stored())).encode())


def hindrance(wanted: PhotoSet, method: str, timm: Path | None) -> str:
    """Return the reason to skip a training; empty if the training is possible."""
    if method == "start" and photo_weights() is None:
        return "no released weights were trained on photos"
    if method == "by_hand" and (wanted.counts or wanted.source not in BY_HAND):
        return "no manual settings for this set"
    if method == "timm" and (wanted.counts or timm is None):
        return "--timm is missing" if timm is None else "not part of the comparison"
    return ""


def trained(
    wanted: PhotoSet, method: str, folder: Path, out: Path, seed: int, timm: Path | None
) -> dict[str, Any]:
    """Train in a new process and return the row for the results."""
    shutil.rmtree(out, ignore_errors=True)
    if method == "timm":
        assert timm is not None
        return by_timm(wanted, folder, out, seed, timm)
    data = f"folder:{folder}"
    settings = {
        "scratch": [f"max_minutes={wanted.minutes:g}", "init_from=none"],
        "start": [f"max_minutes={wanted.minutes:g}"],
        "by_hand": [*HAND_RECIPE, *BY_HAND.get(wanted.source, ())],
    }[method]
    started = time.monotonic()
    command = [sys.executable, "-m", "igcv", "train", *settings, f"seed={seed}"]
    subprocess.run([*command, "--data", data, "--out", str(out), "--device", "cpu"], cwd=ROOT, check=True)
    minutes = (time.monotonic() - started) / 60
    summary, recipe = json.loads((out / SUMMARY).read_text()), load_recipe(out / RECIPE)
    found = igcv.evaluate(out)
    largest = max(images_of(found.confusion).values())
    return {
        "top1": found.top1,
        "balanced": found.balanced,
        "images": found.images,
        "largest_class": 100 * largest / found.images,
        "no_better_than": summary["no_better_than"],
        "minutes": minutes,
        "chosen": {key: getattr(recipe, key) for key in CHOSEN},
    }


def by_timm(wanted: PhotoSet, folder: Path, out: Path, seed: int, timm: Path) -> dict[str, Any]:
    """Run timm's script with its defaults for the same time; return the best accuracy of the finished epochs."""
    data = in_parts(folder, out.with_name(f"{out.name}-data"))
    classes = len(list((data / "train").iterdir()))
    command = [sys.executable, str(timm / "train.py"), "--data-dir", str(data), "--model", TIMM_MODEL]
    command += ["--num-classes", str(classes), "--device", "cpu", "--seed", str(seed)]
    command += ["--output", str(out), "--experiment", "run", "--workers", "1"]
    started = time.monotonic()
    with (out.with_suffix(".log")).open("w") as log:
        script = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)
        while script.poll() is None and time.monotonic() - started < 60 * wanted.minutes:
            time.sleep(TRACK_S)
        script.terminate()
        script.wait()
    with (out / "run" / "summary.csv").open() as file:
        rows = list(csv.DictReader(file))
    images = sum(1 for _ in (data / "validation").rglob("*.*"))
    return {
        "top1": max(float(row["eval_top1"]) for row in rows),
        "images": images,
        "minutes": (time.monotonic() - started) / 60,
        "epochs": len(rows),
    }


def stored() -> dict[str, Any]:
    """Return the stored results."""
    if not RESULTS.is_file():
        return {"rows": {}}
    try:
        return json.loads(RESULTS.read_text())
    except ValueError as error:
        raise InputError(f"'{RESULTS}' is not JSON ({error}). Remove the file to start again") from error


def keep(key: str, row: Mapping[str, Any]) -> None:
    """Add a row and its machine to the results."""
    found = stored()
    found["rows"][key] = {**row, "machine": host_and_versions()}
    write_file(RESULTS, (json.dumps(found, indent=1) + "\n").encode())


if __name__ == "__main__":
    app()
