"""The commands that use a trained network: `igcv evaluate` and `igcv predict`."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igcv.commands.options import DATA_HELP, Device, Force, Split, Weights, is_main
from igcv.commands.terminal import (
    print_copied,
    print_evaluation,
    print_predictions,
    print_table,
    progress_bar,
)

if TYPE_CHECKING:
    from igcv.evaluation import ImagePrediction


def evaluate(
    weights: Weights,
    data: Annotated[
        str | None, typer.Option(help=f"default: the data of the training run. {DATA_HELP}")
    ] = None,
    split: Split = None,
    part: Annotated[
        str, typer.Option(help="images to measure on: val, test (for the final accuracy) or train")
    ] = "val",
    batch_size: Annotated[int, typer.Option(help="images at a time, per process")] = 128,
    workers: Annotated[int, typer.Option(help="processes that decode images")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Measure accuracy and loss on validation or test images, and recall, precision and F1 of every class."""
    import igcv

    result = igcv.evaluate(
        weights, data, split=split, part=part, batch_size=batch_size, workers=workers, device=device
    )
    figures = {"weights": weights, "data": result.data, **({} if part == "val" else {"part": part})}
    figures |= result.as_dict()
    if not is_main():
        return
    for note in result.notes:
        typer.echo(note, err=as_json)
    if as_json:
        print(json.dumps(figures))
    else:
        print_evaluation({**figures, "data": result.data_name}, result.note)


def predict(
    weights: Weights,
    images: Annotated[
        list[Path],
        typer.Argument(metavar="IMAGE|FOLDER...", help="image files, and folders searched recursively"),
    ],
    top: Annotated[int, typer.Option(help="number of top predictions per image", min=1)] = 5,
    threshold: Annotated[
        float, typer.Option(help="probability below which the answer is 'unknown', 0 to 1", min=0, max=1)
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="table to write (CSV): file, class, probability, true class, error")
    ] = None,
    all_classes: Annotated[
        bool, typer.Option("--all", help="with --out: one more column for the probability of each class")
    ] = False,
    force: Force = False,
    sort_into: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="empty or new folder; copies the images into folders by prediction"),
    ] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per image")] = False,
) -> None:
    """Classify images and folders of images: print the most probable classes, or write a table.

    An unreadable image is a line or row with an error. All other images are classified, and the exit status is 2.

    Example: igcv predict runs/photos holiday --out predictions.csv --threshold 0.5
    """
    import igcv
    from igcv.evaluation.outputs import check_folder, check_table, write_table
    from igcv.evaluation.outputs import sort_into as copy_into

    if all_classes and out is None:
        raise igcv.InputError("--all adds columns to the table: give --out, e.g. --out predictions.csv")
    if out is not None:
        check_table(out, force)
    if sort_into is not None:
        check_folder(sort_into)
    shown = None if all_classes else top
    with progress_bar() as progress:
        found = igcv.predict(
            weights, images, top=shown, threshold=threshold, device=device, progress=progress
        )
    if as_json:
        for entry in found:
            print(json.dumps(as_json_object(entry, top)))
    elif out is None and sort_into is None:
        print_predictions(found)
    if out is not None:
        write_table(found, out, all_classes=all_classes, force=force)
        print_table(found, out)
    if sort_into is not None:
        print_copied(copy_into(found, sort_into), sort_into)
    if bad := [entry.error for entry in found if entry.error]:
        raise igcv.InputError(f"{len(bad)} of {len(found)} images cannot be read; the first: {bad[0]}")


def as_json_object(entry: "ImagePrediction", top: int) -> dict[str, Any]:
    """An answer as --json prints it."""
    if entry.error:
        return {"image": entry.file, "error": entry.error}
    answers = [
        {"class": guess.name, "probability": round(guess.probability, 6)} for guess in entry.predictions[:top]
    ]
    unknown = {"unknown": True} if entry.is_unknown else {}
    return {"image": entry.file, "predictions": answers, **unknown}
