"""The command line: one command per job; each parses, calls one function below, and prints."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape
from rich.table import Table

import igcv
from igcv.errors import InputError

if TYPE_CHECKING:
    from igcv.training import Recipe

app = typer.Typer(
    name="igcv",
    help="Interleaved group convolution networks: train, evaluate, predict, convert.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
console = Console()

DATA_HELP = (
    "digits, cifar10, cifar100 (or cifar10:PATH), folder:PATH with class folders, rec:TRAIN.rec,VAL.rec "
    "(MXNet RecordIO), or timm/... for any map-style data set of timm"
)
Weights = Annotated[str, typer.Argument(metavar="RUN|WEIGHTS", help="run folder or .safetensors file")]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]


@app.command()
def train(
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[RECIPE.toml] [key=value ...]", help="a recipe file and changes to it"),
    ] = None,
    model: Annotated[
        str | None, typer.Option(help="network, e.g. igcv3_d_100 (igcv models lists them)")
    ] = None,
    data: Annotated[str | None, typer.Option(help=DATA_HELP)] = None,
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
    from igcv.training import find_recipe, load_recipe, process_group
    from igcv.training import train as run_training

    if keys:
        print_settings()
        return
    settings = settings or []
    recipe_file = find_recipe(settings.pop(0)) if settings and "=" not in settings[0] else None
    if resume:
        recipe_file = recipe_file or run_recipe_file(out)
    recipe = load_recipe(recipe_file, settings, model=model, data=data, init_from=init_from)
    folder = out or Path("runs") / f"{recipe.model}-{re.sub(r'[^a-z0-9]+', '_', recipe.data.lower())[:40]}"
    if gpus is not None:
        check_before_launch(recipe, folder, resume, gpu_list(gpus))
        raise typer.Exit(launch(gpu_list(gpus)))
    with process_group(device) as process:
        summary = run_training(recipe, folder, process, resume=resume, quiet=quiet)
    if not quiet and process.is_main:
        print_summary(summary, folder)


def run_recipe_file(out: Path | None) -> Path:
    """The recipe in the run folder that is to be resumed."""
    if out is None:
        raise InputError("--resume needs --out, the folder of the run to go on with")
    if not (out / "recipe.toml").is_file():
        raise InputError(f"there is no run to resume in {out}; leave out --resume to start one")
    return out / "recipe.toml"


def gpu_list(gpus: str) -> list[str]:
    """The devices that --gpus names, as CUDA_VISIBLE_DEVICES counts them."""
    import torch

    numbers, count = [number.strip() for number in gpus.split(",")], torch.cuda.device_count()
    if not all(number.isdigit() for number in numbers) or len(set(numbers)) < len(numbers):
        raise InputError(f"--gpus {gpus} is no list of GPU numbers; give e.g. --gpus 0,1,2,3")
    if max(map(int, numbers)) >= count:
        raise InputError(
            f"--gpus {gpus}: this machine has {count} GPUs, counted from 0; without --gpus the CPU serves"
        )
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", ",".join(map(str, range(count)))).split(",")
    return [visible[int(number)] for number in numbers]


def check_before_launch(recipe: "Recipe", folder: Path, resume: bool, gpus: list[str]) -> None:
    """Find what is wrong with the input here, once, rather than in every process."""
    import torch

    from igcv.training import Process
    from igcv.training.job import plan
    from igcv.training.run import Run

    plan(recipe, Process(torch.device("cuda"), 0, len(gpus)))
    Run(folder, resume)


def launch(gpus: list[str]) -> int:
    """Start this command again under torchrun, one process for each of `gpus`; returns its exit status."""
    runner = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc-per-node={len(gpus)}"]
    command = [*runner, "-m", "igcv", *without_option(sys.argv[1:], "--gpus")]
    return subprocess.call(command, env={**os.environ, "CUDA_VISIBLE_DEVICES": ",".join(gpus)})


def without_option(arguments: list[str], option: str) -> list[str]:
    """`arguments` without `option` and its value, in both spellings (--gpus 0,1 and --gpus=0,1)."""
    kept, skip = [], False
    for argument in arguments:
        if skip or argument.startswith(f"{option}="):
            skip = False
        elif argument == option:
            skip = True
        else:
            kept.append(argument)
    return kept


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
    from igcv.data import open_source
    from igcv.training import evaluate_classifier, process_group

    with process_group(device) as process:
        classifier = igcv.load(weights, process.device)
        spec = data or classifier.card.recipe.get("data")
        if not spec:
            raise InputError(f"{weights} does not say what it was trained on; add --data")
        seed = 0 if spec == classifier.card.recipe.get("data") else None  # of other data, all images count
        source = open_source(spec, seed)
        result = evaluate_classifier(
            classifier, source, batch_size=batch_size, workers=workers, process=process
        )
    figures = {"weights": weights, "data": spec, **result.as_dict(classifier.class_names)}
    if not process.is_main:
        return
    if as_json:
        print(json.dumps(figures))
    else:
        print_evaluation(figures)


@app.command()
def predict(
    weights: Weights,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="image files")],
    top: Annotated[int, typer.Option(help="guesses per image", min=1)] = 5,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per image")] = False,
) -> None:
    """Classify images: the most probable classes of each, with their probabilities."""
    from igcv.training import choose_device

    classifier = igcv.load(weights, choose_device(device))
    for image, guesses in zip(images, classifier.predict(images, top), strict=True):
        if as_json:
            answers = [{"class": guess.name, "probability": round(guess.probability, 6)} for guess in guesses]
            print(json.dumps({"image": str(image), "predictions": answers}))
        else:
            console.print(str(image), style="bold", highlight=False, markup=False)
            for guess in guesses:
                console.print(
                    f"  {100 * guess.probability:6.2f} %  {guess.name}", highlight=False, markup=False
                )


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
    table = Table("network", "input", "parameters", "multiply-adds", box=None, header_style="bold")
    for name in names:
        size = input_size or default_input_size(name)
        cost = model_cost(name, num_classes, size)
        if as_json:
            print(json.dumps({"name": name, "input_size": size, **cost._asdict()}))
        table.add_row(name, f"{size} px", f"{cost.parameters:,}", f"{cost.multiply_adds / 1e6:,.1f} M")
    if not as_json:
        console.print(table)


@app.command()
def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="MXNet's X-0000.params, or weights of igcv")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="OUT.safetensors, or OUT-0000.params")],
    symbol: Annotated[Path | None, typer.Option(help="the graph, X-symbol.json, to check against")] = None,
    input_size: Annotated[
        int | None, typer.Option(help="image side in pixels; default: the network's own")
    ] = None,
) -> None:
    """Convert an MXNet checkpoint to safetensors, or weights of igcv to an MXNet checkpoint.

    Example: igcv convert igcv3-0000.params igcv3.safetensors --symbol igcv3-symbol.json
    """
    from igcv.classifier import weights_file
    from igcv.mxnet import from_mxnet, to_mxnet
    from igcv.weights import save_weights

    if target.exists():
        raise InputError(f"{target} exists already; choose another name or remove it")
    if source.suffix == ".params" and target.suffix == ".safetensors":
        classifier = from_mxnet(source, symbol, input_size)
        save_weights(target, classifier.model.state_dict(), classifier.card)
        parameters = sum(p.numel() for p in classifier.model.parameters())
        found = f"{classifier.card.model}, {classifier.card.num_classes} classes, {parameters:,} parameters"
    elif target.suffix == ".params":
        to_mxnet(weights_file(source), target)
        found = "MXNet checkpoint"
    else:
        raise InputError(
            f"cannot convert {source} to {target}; give X.params OUT.safetensors, or IN OUT.params"
        )
    console.print(f"{target}: {found}", highlight=False, soft_wrap=True)


def print_settings() -> None:
    """All keys of a recipe with type, default and meaning."""
    from dataclasses import fields

    from igcv.training import Recipe

    table = Table("key", "default", "meaning", box=None, header_style="bold")
    for f in fields(Recipe):
        choices = f" ({', '.join(f.metadata['choices'])})" if f.metadata["choices"] else ""
        default = "" if f.default in (None, "", ()) else str(f.default)
        table.add_row(f.name, default, f.metadata["help"] + choices)
    console.print(table)


def print_summary(summary: dict[str, Any], folder: Path) -> None:
    """The end of a training run: figures, files, and what to type next."""
    table = Table(title="Run finished", box=None, show_header=False, title_justify="left", title_style="bold")
    rows = {
        "network": f"{summary['model']}, {summary['parameters']:,} parameters",
        "data": summary["data"],
        "best top-1": "no validation images"
        if summary["best_top1"] is None
        else f"{summary['best_top1']:.2f} %",
        "epochs": f"{summary['epochs']} in {summary['time_s']:,.0f} s",
        "curves": str(folder / "curves.png"),
        "weights": str(folder / "best.safetensors"),
    }
    for name, value in rows.items():
        table.add_row(name, escape(value))
    console.print(table)
    console.print(
        f"\nNext:  igcv evaluate {folder}\n       igcv predict {folder} IMAGE...\n"
        f"       tensorboard --logdir {folder}/tensorboard",
        highlight=False,
    )


def print_evaluation(figures: dict[str, Any]) -> None:
    """An evaluation as a table, its classes from worst to best."""
    where = f"{figures['weights']} on {figures['data']}: {figures['images']:,} images"
    console.print(where, highlight=False, markup=False, soft_wrap=True)
    console.print(
        f"top-1 [bold]{figures['top1']:.2f} %[/bold]   top-5 {figures['top5']:.2f} %   loss {figures['loss']:.4f}",
        highlight=False,
    )
    table = Table("class", "top-1", box=None, header_style="bold")
    known = [(accuracy, name) for name, accuracy in figures["per_class"].items() if accuracy is not None]
    shown = sorted(known)[:20]
    for accuracy, name in shown:
        table.add_row(escape(name), f"{accuracy:.2f} %")
    console.print(table)
    if len(known) > len(shown):
        console.print(f"(the {len(shown)} hardest of {len(known)} classes; --json has all)", highlight=False)


def main() -> None:
    """Entry point: what the user can mend is one line on standard error and exit status 2."""
    try:
        app()
    except InputError as error:
        if os.environ.get("RANK", "0") == "0":  # of several processes, all of which stop, one says why
            print(f"igcv: {error}", file=sys.stderr)
        sys.exit(2)
