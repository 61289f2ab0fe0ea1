"""The commands `igcv train`, `igcv check`, `igcv report` and `igcv bench data`."""

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

from igcv.commands.options import DATA_HELP, Data, Device, Model, RecipeArguments, Split, is_main, recipe_of
from igcv.commands.printing.lines import print_line, progress_bar
from igcv.commands.printing.training import print_check, print_data_bench, print_settings, print_summary
from igcv.terminal import quoted


def train(
    settings: RecipeArguments = None,
    model: Model = None,
    data: Data = None,
    split: Split = None,
    out: Annotated[
        Path | None, typer.Option(help="run folder; default: runs/DATA, or runs/MODEL-DATA with a recipe")
    ] = None,
    init_from: Annotated[
        str | None,
        typer.Option(
            help="initial weights for fine-tuning: run folder, weights file, or weights name, e.g. igcv3_d_100.imagenet"
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="resume the run in --out")] = False,
    gpus: Annotated[
        str | None, typer.Option(help="GPUs to train on, e.g. 0,1,2,3; one process per GPU")
    ] = None,
    device: Device = "auto",
    quiet: Annotated[bool, typer.Option("--quiet", help="print nothing during training")] = False,
    keys: Annotated[bool, typer.Option("--keys", help="list all settings of a recipe and exit")] = False,
) -> None:
    """Train a network and write the results to a run folder.

    Without a recipe, the settings follow from the data and the machine.

    Example: igcv train --data folder:photos max_minutes=10
    """
    import igcv
    from igcv.training import Recipe
    from igcv.training.launch import check_before_launch, gpu_list, launch, without_option
    from igcv.training.phases import default_folder, run_recipe_file

    if keys:
        print_settings(Recipe)
        return
    resumed = run_recipe_file(out) if resume else None
    recipe = recipe_of(settings, resumed, model=model, data=data, split=split, init_from=init_from)
    if gpus is not None:
        devices = gpu_list(gpus)
        check_before_launch(recipe, out or default_folder(recipe), resume, devices)
        raise typer.Exit(launch(devices, without_option(sys.argv[1:], "--gpus")))
    run = igcv.train(recipe, out, resume=resume, device=device, quiet=quiet)
    if not quiet and is_main():
        if run.was_there:
            longer = f"igcv train --resume --out {quoted(run.folder)} epochs=N"
            print_line(
                f"the run in '{run.folder}' is complete. To train longer: {longer}. To train again: another --out"
            )
        print_summary(run.summary, run.folder)


def check(
    data: Annotated[str, typer.Argument(metavar="DATA", help=f"data source: {DATA_HELP}")],
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="[key=value ...]", help="training settings (igcv train --keys)"),
    ] = None,
    split: Split = None,
    out: Annotated[
        Path | None, typer.Option(help="HTML page to write, with thumbnails, e.g. check.html")
    ] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Check a data set before training: images per class, unreadable and duplicate images, expected training time.

    The exit status is 1 if the data set has problems to fix.

    Example: igcv check folder:photos --out check.html
    """
    import igcv
    from igcv.training.recipe_file import parse_settings

    with progress_bar("images") as progress:
        checked = igcv.check(
            data, split=split, out=out, device=device, progress=progress, **parse_settings(settings or [])
        )
    if as_json:
        print(json.dumps(checked.as_dict()))
    else:
        print_check(checked)
        if out is not None:
            print_line(f"{out}: open it in a browser")
    raise typer.Exit(1 if checked.problems else 0)


def report(
    runs: Annotated[list[Path], typer.Argument(metavar="RUN...", help="run folders, complete or not")],
    out: Annotated[
        Path | None,
        typer.Option(
            help="HTML page to write; default: report.html in the run folder, runs.html for several runs"
        ),
    ] = None,
) -> None:
    """Write an HTML report of one or more runs: curves, misclassified images, accuracy per class, costs, settings.

    The page is one file and works offline. `igcv train` writes the report of a run at its end.

    Example: igcv report runs/first runs/second --out comparison.html
    """
    import igcv

    print_line(f"{igcv.write_report(runs, out)}: open it in a browser")


def bench_data(
    settings: RecipeArguments = None,
    model: Model = None,
    data: Data = None,
    seconds: Annotated[
        float, typer.Option(help="measurement time in seconds, after a warm-up", min=0.1)
    ] = 10.0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Measure the data-loading speed, and the share of the training time spent waiting for images.

    Data loading comprises reading, decoding, augmenting, copying to the device, and normalizing.

    Example: igcv bench data recipes/imagenet_mxnet.toml --data folder:photos workers=4
    """
    from igcv.machine.processes import Process, choose_device
    from igcv.training import bench_data as time_loading

    recipe = recipe_of(settings, model=model, data=data)
    figures = time_loading(recipe, Process(choose_device(device)), seconds)
    if as_json:
        print(json.dumps(figures))
    else:
        print_data_bench(figures)
