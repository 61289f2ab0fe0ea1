"""The command line: one command per job; each parses, calls one function below, and prints."""

import json
import os
import re
import sys
from pathlib import Path
from typing import Annotated, Any

import typer

import igcv
from igcv.deploy_commands import bench_latency, export
from igcv.errors import InputError, Interrupted, SharedError
from igcv.terminal import (
    print_catalog,
    print_data_bench,
    print_evaluation,
    print_guesses,
    print_line,
    print_settings,
    print_stages,
    print_summary,
    print_unmet,
)
from igcv.web_command import web

app = typer.Typer(
    name="igcv",
    help="Interleaved group convolution networks: train, evaluate, predict, convert, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
app.add_typer(bench, name="bench")
DATA_HELP = (
    "digits, cifar10, cifar100 (or cifar10:PATH), tinyimagenet:PATH, folder:PATH with class folders, "
    "rec:TRAIN.rec,VAL.rec (MXNet RecordIO), timm/READER/NAME for what timm opens, or train:SOURCE for the training "
    "images of another alone"
)
Weights = Annotated[
    str,
    typer.Argument(
        metavar="RUN|WEIGHTS", help="run folder, .safetensors file, or a file that igcv export wrote"
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
Settings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.toml] [key=value ...]", help="a recipe file and changes to it"),
]
Model = Annotated[str | None, typer.Option(help="network, e.g. igcv3_d_100 (igcv models lists them)")]
Data = Annotated[str | None, typer.Option(help=DATA_HELP)]


@app.command()
def train(
    settings: Settings = None,
    model: Model = None,
    data: Data = None,
    out: Annotated[Path | None, typer.Option(help="run folder; default: runs/MODEL-DATA")] = None,
    init_from: Annotated[
        str | None, typer.Option(help="run folder or weights to start from (fine-tuning)")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on with the run in --out")] = False,
    gpus: Annotated[
        str | None, typer.Option(help="GPUs to train on, e.g. 0,1,2,3; one process for each")
    ] = None,
    device: Device = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="print nothing while training")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="list all settings of a recipe and stop")] = False,
) -> None:
    """Train a network, from a recipe, into a run folder.

    Example: igcv train recipes/cifar_fast.toml --data cifar10 --out runs/c10 epochs=30
    """
    from igcv.training import Recipe, load_recipe, process_group
    from igcv.training import train as run_training
    from igcv.training.distributed import from_main
    from igcv.training.launch import check_before_launch, gpu_list, launch, without_option
    from igcv.training.run import was_restarted

    if keys:
        print_settings(Recipe)
        return
    recipe_file, changes = split_settings(settings)
    if resume:
        recipe_file = recipe_file or run_recipe_file(out)
    recipe = load_recipe(recipe_file, changes, model=model, data=data, init_from=init_from)
    folder = out or Path("runs") / f"{recipe.model}-{re.sub(r'[^a-z0-9]+', '_', recipe.data.lower())[:40]}"
    if gpus is not None:
        devices = gpu_list(gpus)
        check_before_launch(recipe, folder, resume, devices)
        raise typer.Exit(launch(devices, without_option(sys.argv[1:], "--gpus")))
    with process_group(device) as process:
        resume = resume or from_main(was_restarted(folder))
        summary = run_training(recipe, folder, process, resume=resume, quiet=quiet)
    if not quiet and process.is_main:
        print_summary(summary, folder)


def split_settings(settings: list[str] | None) -> tuple[Path | None, list[str]]:
    """The recipe file, if one comes first, and the changes to it."""
    from igcv.training import find_recipe

    if not settings or "=" in settings[0]:
        return None, settings or []
    return find_recipe(settings[0]), settings[1:]


def run_recipe_file(out: Path | None) -> Path:
    """The recipe in the run folder that is to be resumed."""
    if out is None:
        raise InputError("--resume needs --out, the folder of the run to go on with")
    if not (out / "recipe.toml").is_file():
        raise InputError(f"there is no run to resume in {out}; leave out --resume to start one")
    return out / "recipe.toml"


@app.command()
def evaluate(
    weights: Weights,
    data: Annotated[
        str | None, typer.Option(help=f"default: the data of the training run. {DATA_HELP}")
    ] = None,
    batch_size: Annotated[int, typer.Option(help="images at a time, per process")] = 128,
    workers: Annotated[int, typer.Option(help="processes that decode images")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Measure top-1, top-5, loss and the accuracy of every class on validation images."""
    from igcv.deploy.exported import open_any
    from igcv.training import evaluate_classifier, process_group
    from igcv.training.distributed import first_on_machine, together

    with process_group(device) as process:
        with together():
            classifier = open_any(weights, process.device)
        source = first_on_machine(process, lambda: classifier.open_data(data))
        result = evaluate_classifier(
            classifier, source, batch_size=batch_size, workers=workers, process=process
        )
    figures = {"weights": weights, "data": source.spec, **result.as_dict(classifier.class_names)}
    if not process.is_main:
        return
    if as_json:
        print(json.dumps(figures))
    else:
        print_evaluation(figures)


@app.command()
def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, finished or not")],
    out: Annotated[
        Path | None,
        typer.Option(help="the page; default: report.html in the run folder, of several runs runs.html"),
    ] = None,
) -> None:
    """Show runs as one page: curves, mistakes, accuracy of every class, costs, settings.

    The page needs no network and no other file. A run writes its own at its end.

    Example: igcv report runs/first runs/second --out comparison.html
    """
    from igcv.training.report import write_report
    from igcv.training.run import REPORT

    page = out or (runs[0] / REPORT if len(runs) == 1 else Path("runs.html"))
    write_report(runs, page)
    print_line(f"{page}: open it in a browser")


@app.command()
def predict(
    weights: Weights,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="image files")],
    top: Annotated[int, typer.Option(help="guesses per image", min=1)] = 5,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per image")] = False,
) -> None:
    """Classify images: the most probable classes of each, with their probabilities."""
    from igcv.deploy.exported import open_any
    from igcv.training import choose_device

    classifier = open_any(weights, choose_device(device))
    for image, guesses in zip(images, classifier.predict(images, top), strict=True):
        if as_json:
            answers = [{"class": guess.name, "probability": round(guess.probability, 6)} for guess in guesses]
            print(json.dumps({"image": str(image), "predictions": answers}))
        else:
            print_guesses(str(image), guesses)


@app.command()
def models(
    pattern: Annotated[str, typer.Argument(help="shell pattern, e.g. 'igcv3*'")] = "*",
    num_classes: Annotated[int, typer.Option(help="outputs of the classifier", min=0)] = 1000,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: each network's own")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per network")] = False,
) -> None:
    """List the networks with their parameters and multiply-adds."""
    from igcv.analysis import model_cost
    from igcv.errors import unknown
    from igcv.models import default_input_size

    names = igcv.list_models(pattern)
    if not names:
        raise unknown("model pattern", pattern, igcv.list_models(), "igcv models lists them all")
    sizes = {name: input_size or default_input_size(name) for name in names}
    costs = {name: model_cost(name, num_classes, size) for name, size in sizes.items()}
    if not as_json:
        print_catalog(sizes, costs)
        return
    for name, cost in costs.items():
        print(json.dumps({"name": name, "input_size": sizes[name], **cost._asdict()}))


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="MXNet's X-0000.params, or weights of igcv")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.safetensors, or OUT-0000.params")],
    symbol: Annotated[Path | None, typer.Option(help="the graph, X-symbol.json, to check against")] = None,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own", min=1)
    ] = None,
    strides: Annotated[
        str | None,
        typer.Option(help="strides of the stem and the stages; default: the network's for --input-size"),
    ] = None,
) -> None:
    """Convert an MXNet checkpoint to safetensors, or weights of igcv to an MXNet checkpoint.

    A checkpoint does not tell the strides of its network. Give them for a network of small images that was trained with
    others than igcv's, e.g. --input-size 32 --strides 1,1,1,2,2,1,2,1.

    Example: igcv convert igcv3-0000.params igcv3.safetensors --symbol igcv3-symbol.json
    """
    from igcv.models import strides_text
    from igcv.mxnet import from_mxnet, to_mxnet
    from igcv.weights import save_weights

    if target.exists():
        raise InputError(f"{target} exists already; choose another name or remove it")
    if source.suffix == ".params" and target.suffix == ".safetensors":
        classifier = from_mxnet(source, symbol, input_size, None if strides is None else stride_list(strides))
        save_weights(target, classifier.model.state_dict(), classifier.card)
        parameters = sum(p.numel() for p in classifier.model.parameters())
        card = classifier.card
        found = (
            f"{card.model}, {card.num_classes} classes, {parameters:,} parameters, {card.input_size} x "
            f"{card.input_size} pixels, strides {strides_text(card.strides)}"
        )
    elif target.suffix == ".params":
        if input_size or strides or symbol:
            raise InputError(
                "--input-size, --strides and --symbol belong to a conversion from MXNet; leave them out"
            )
        to_mxnet(source, target)
        found = "MXNet checkpoint"
    else:
        raise InputError(
            f"cannot convert {source} to {target}; give X.params OUT.safetensors, or IN OUT.params"
        )
    print_line(f"{target}: {found}")


def stride_list(text: str) -> list[int]:
    """Return the strides in an option such as 1,1,1,2,2,1,1,1."""
    parts = text.split(",")
    if not all(part.strip().isdigit() for part in parts):
        raise InputError(f"--strides: got '{text}', expected whole numbers with commas, e.g. 1,1,1,2,2,1,1,1")
    return [int(part) for part in parts]


@app.command()
def summary(
    name: Annotated[str, typer.Argument(help="network, e.g. igcv3_d_100 (igcv models lists them)")],
    num_classes: Annotated[int, typer.Option(help="outputs of the classifier", min=0)] = 1000,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own", min=1)
    ] = None,
    plot: Annotated[Path | None, typer.Option(help="draw a block into this file (.svg, .png, .pdf)")] = None,
    block: Annotated[
        str | None, typer.Option(help="the block to draw, e.g. stages.2.1; default: one in the middle")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per stage")] = False,
) -> None:
    """Show a network stage by stage: its costs, and whether its blocks connect all channels as the papers demand.

    Example: igcv summary igcv3_d_100 --plot block.svg --block stages.2.1
    """
    import torch

    from igcv.analysis import blocks, connectivity, summarize
    from igcv.models import default_input_size, strides_text

    if block is not None and plot is None:
        raise InputError("--block names the block to draw; add --plot FILE.svg")
    size = input_size or default_input_size(name)
    with torch.device("meta"):
        network = igcv.create_model(name, num_classes, input_size=input_size)
    rows, described = summarize(network, size), blocks(network)
    if plot is not None:
        draw_one(name, described, block or described[len(described) // 2].name, plot)
    if as_json:
        for row in rows:
            print(
                json.dumps({k: v._asdict() if hasattr(v, "_asdict") else v for k, v in row._asdict().items()})
            )
        return
    print_stages(f"{name}, {size} px, strides {strides_text(network.strides)}", rows)
    for found, paths in ((b, connectivity(b)) for b in described):
        if not paths.holds:
            print_unmet(found.name, found.condition, paths)


def draw_one(name: str, described: list[Any], wanted: str, path: Path) -> None:
    """Draw the block called `wanted` (the first of its convolutions, where it has two)."""
    from igcv.errors import unknown
    from igcv.report import draw_block

    found = next((b for b in described if f"{b.name}.".startswith(f"{wanted}.")), None)
    if found is None:
        raise unknown("block", wanted, [b.name for b in described], "stages.STAGE.BLOCK, both counted from 0")
    draw_block(found.rows(), path, f"{name}, {found.name}")


@bench.command("data")
def bench_data(
    settings: Settings = None,
    model: Model = None,
    data: Data = None,
    seconds: Annotated[float, typer.Option(help="how long to measure, after a warm-up", min=0.1)] = 10.0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Measure how fast training images come, and how much of a training step waits for them.

    Loading is everything up to batches on the device: reading, decoding, augmenting, copying, normalizing.

    Example: igcv bench data recipes/imagenet_mxnet.toml --data folder:photos workers=4
    """
    from igcv.training import Process, choose_device, load_recipe
    from igcv.training import bench_data as measure

    recipe_file, changes = split_settings(settings)
    recipe = load_recipe(recipe_file, changes, model=model, data=data)
    figures = measure(recipe, Process(choose_device(device)), seconds)
    if as_json:
        print(json.dumps(figures))
    else:
        print_data_bench(figures)


app.command()(export)
app.command()(web)
bench.command("latency")(bench_latency)


def main() -> None:
    """Entry point: what the user can mend is one line on standard error and exit status 2.

    A run that a signal ended has the exit status that shells give for the signal: 128 and its number.
    """
    rank = int(os.environ.get("RANK", "0"))  # torchrun's number of this process
    try:
        app()
    except InputError as error:
        if rank == 0 or not isinstance(error, SharedError):
            print(f"igcv: {f'process {rank}: ' if rank else ''}{error}", file=sys.stderr)
        sys.exit(2)
    except Interrupted as end:
        if rank == 0:
            print(f"igcv: {end}", file=sys.stderr)
        sys.exit(128 + end.signal)
