"""Train the comparison table or variants of its recipe in resumable runs: `python -m studies.table`."""

import json
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, NoReturn

import torch
import typer

from igcv.data.sources.open import open_source
from igcv.deploy.latency import latency_entry, ratios, time_networks
from igcv.errors import InputError
from igcv.weights import load_weights
from igcv.weights.released import released_weights
from studies.benchmarks.conditions import host_and_versions
from studies.table.outcomes import columns
from studies.table.pages import cost_table, latency_section, results_page, tables, with_results
from studies.table.plan import (
    BASELINE,
    DATA_SETS,
    LATENCY,
    NETWORKS,
    RECIPES,
    SEEDS,
    DataSet,
    Training,
    ablation_trainings,
    data_set,
    table_trainings,
)
from studies.table.plots import plot
from studies.table.released import accuracy_of, release
from studies.table.run import run_all
from studies.table.speed import seconds_to, timed_run

ROOT = Path(__file__).parents[2]
RESULTS, README, RELEASED = ROOT / "studies" / "results", ROOT / "README.md", ROOT / "released"
LATENCIES, PLOT = "latency.json", "accuracy.png"
SPEED_RECIPE, TARGETS = "recipes/cifar_speed.toml", (94.56, 94.96)
TOLERANCE = 0.02  # percentage points of accuracy; processors differ in rounding
MODELS = tuple(row.model for row in NETWORKS)

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)
DataName = Annotated[
    str,
    typer.Option(
        "--data",
        help=f"data set: {', '.join(d.name for d in DATA_SETS)}, or NAME=SPEC with the --data of igcv train",
    ),
]
Minutes = Annotated[
    float,
    typer.Option(help="minutes until all runs are saved and end; the same command resumes them", min=0),
]
AtOnce = Annotated[
    int, typer.Option(help="concurrent trainings; one alone uses a whole GPU or all cores", min=1)
]
Seeds = Annotated[int, typer.Option(help="number of seeds per network", min=1, max=len(SEEDS))]
Changes = Annotated[list[str] | None, typer.Argument(metavar="[key=value ...]", help="changes to the recipe")]


@app.command("train")
def train_table(
    changes: Changes = None,
    data: Annotated[
        list[str] | None,
        typer.Option(
            help="data sets, as NAME or NAME=SPEC (the --data of igcv train); default: all available"
        ),
    ] = None,
    recipe: Annotated[
        str | None,
        typer.Option(help="recipe for all data sets; default: the recipes for GPU or CPU"),
    ] = None,
    minutes: Minutes = 9.0,
    at_once: AtOnce = 1,
    seeds: Seeds = len(SEEDS),
    model: Annotated[list[str] | None, typer.Option(help="networks; default: all of the table")] = None,
) -> None:
    """Train the networks of the table in order, or resume them; write results to studies/results/DATA/RECIPE."""
    recipes = RECIPES["gpu" if torch.cuda.is_available() else "cpu"]
    wanted = [data_set(text) for text in data or recipes]
    known = {d.name: recipe or recipes.get(d.name, next(iter(recipes.values()))) for d in wanted}
    opened = [d for d in wanted if is_there(d, required=bool(data))]
    run_trainings(table_trainings(opened, known, model or MODELS, seeds, changes or []), minutes, at_once)


@app.command("ablation")
def train_ablation(
    changes: Changes = None,
    data: DataName = "cifar10",
    minutes: Minutes = 9.0,
    at_once: AtOnce = 1,
    seeds: Seeds = 1,
    model: Annotated[str, typer.Option(help="network")] = "igcv3_d_100",
) -> None:
    """Train variants of the recipe on a part of the training images, and measure on held-out training images.

    The validation images of the data set are not used.
    """
    trainings = ablation_trainings(data_set(data), model, seeds, changes or [])
    is_there(trainings[0].data, required=True)
    run_trainings(trainings, minutes, at_once)


@app.command("speed")
def measure_speed(
    changes: Changes = None,
    data: DataName = "cifar10",
    target: Annotated[
        list[float] | None, typer.Option(help="target accuracies in percent; default: 94.56 94.96")
    ] = None,
    seeds: Seeds = len(SEEDS),
) -> None:
    """Measure the seconds of `igcv train` from its start to a target accuracy, one seed after another."""
    images, found = data_set(data), {}
    open_source(images.spec)  # download now, so that the time excludes the download
    for seed in SEEDS[:seeds]:
        settings = [SPEED_RECIPE, *(changes or []), f"seed={seed}", "--data", images.spec]
        epochs = timed_run(settings, ROOT / "runs" / f"{images.name}_speed" / f"seed{seed}")
        times = {str(goal): seconds_to(goal, epochs) for goal in target or TARGETS}
        found[str(seed)] = {"seconds_to": times, "epochs": epochs}
        typer.echo(f"seed {seed}: {epochs[-1]['top1']:.2f} % after {epochs[-1]['seconds']:.1f} s; {times}")
    measured = {
        "machine": host_and_versions("cuda" if torch.cuda.is_available() else "cpu"),
        "changes": changes or [],
        "seeds": found,
    }
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"speed_{images.name}.json").write_text(json.dumps(measured, indent=2) + "\n")


@app.command("latency")
def measure_latency(rounds: Annotated[int, typer.Option(help="measurement rounds", min=1)] = 15) -> None:
    """Measure the latency of the networks at 32 and 224 pixels: folded, ONNX Runtime, batch 1, one thread."""
    sizes = {str(size): latencies(models, size, rounds) for size, models in LATENCY.items()}
    RESULTS.mkdir(exist_ok=True)
    measured = {"machine": host_and_versions(), "rounds": rounds, "sizes": sizes}
    (RESULTS / LATENCIES).write_text(json.dumps(measured, indent=2) + "\n")
    print(latency_section(measured))


def latencies(models: Sequence[str], size: int, rounds: int) -> dict[str, dict[str, dict[str, float]]]:
    """Return "ms" and "ratio" (to the baseline) of each network at an image size, as median, low and high."""
    entered = [latency_entry(model, "onnx", 1, 1, "auto", size) for model in models]
    results = dict(zip(models, time_networks(entered, 1, 1, rounds), strict=True))
    return {
        model: {
            "ms": by_name(result.median_ms, min(result.times_ms), max(result.times_ms)),
            "ratio": by_name(*ratios(result, results[BASELINE])),
        }
        for model, result in results.items()
    }


def by_name(middle: float, low: float, high: float) -> dict[str, float]:
    """Return a median with its range by name."""
    return {"median": round(middle, 4), "low": round(low, 4), "high": round(high, 4)}


@app.command()
def report() -> None:
    """Write README.md and accuracy.png in studies/results/, and the results section of the main README.md."""
    found = columns(RESULTS)
    file = RESULTS / LATENCIES
    measured = json.loads(file.read_text()) if file.is_file() else None
    times = measured["sizes"]["32"] if measured else {}
    plot(found, {model: t["ms"]["median"] for model, t in times.items()}, RESULTS / PLOT)
    text = tables(found)
    costs = [cost_table(measured)] if measured else []
    README.write_text(with_results(README.read_text(), "\n\n".join([*costs, text])))
    ablations = {path.parent.name: path for path in sorted(RESULTS.glob("*_ablation/*")) if path.is_dir()}
    (RESULTS / "README.md").write_text(results_page(text, ablations, measured))


@app.command("release")
def release_runs(
    runs: Annotated[list[Path], typer.Argument(help="run folders")],
    name: Annotated[str, typer.Option(help="data set name in the file names")],
    data: Annotated[
        str | None, typer.Option(help="validation images; default: the data set of the run")
    ] = None,
) -> None:
    """Write the last-epoch weights of runs to released/, in float16 if this costs no accuracy."""
    for run in runs:
        file, card = release(run, name, RELEASED, data)
        typer.echo(f"{file}: {card.results['top1']:.2f} %, {card.results['stored']}")


@app.command()
def check(
    data: Annotated[
        str | None, typer.Option(help="validation images; default: the data set in each card")
    ] = None,
) -> None:
    """Verify the accuracy of all released weights; exit with status 1 if an accuracy differs from its card."""
    wrong = 0
    for released_name, file in released_weights().items():
        claimed, found = load_weights(file)[1].results["top1"], accuracy_of(file, data).top1
        wrong += abs(found - claimed) > TOLERANCE
        typer.echo(f"{released_name}: {found:.2f} %, card: {claimed:.2f} %")
    raise typer.Exit(int(wrong > 0))


def is_there(data: DataSet, required: bool) -> bool:
    """Return whether a data set can be opened, after downloading it if possible. Print a line if it cannot.

    Raises:
        InputError: if a required data set cannot be opened.
    """
    try:
        open_source(data.spec)
    except InputError as error:
        if required:
            raise
        typer.echo(f"skipping {data.label}: {error}")
        return False
    return True


def run_trainings(trainings: list[Training], minutes: float, at_once: int) -> None:
    """Run trainings until all are done or the time is up. Exit with status 1 if a training failed."""
    tally = run_all(trainings, ROOT / "runs", RESULTS, at_once, 60 * minutes, typer.echo)
    if tally.left:
        typer.echo(
            f"{tally.left} of {len(trainings)} trainings are left. Run the same command to resume them."
        )
    if tally.failed:
        raise typer.Exit(1)


def end(number: int, frame: object) -> NoReturn:
    """Raise SystemExit, so that running trainings save before the end."""
    raise SystemExit(128 + number)


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, end)
    try:
        app(prog_name="python -m studies.table")
    except InputError as error:
        raise SystemExit(f"studies.table: {error}") from None
