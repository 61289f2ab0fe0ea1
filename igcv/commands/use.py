"""The commands `igcv evaluate` and `igcv predict`."""

import json
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from igcv.commands.images import STANDARD_INPUT, NamedImages, named_images
from igcv.commands.options import DATA_HELP, Device, Force, Match, Split, Weights, is_main
from igcv.commands.printing.lines import print_error, print_line, progress_bar
from igcv.commands.printing.use import print_copied, print_evaluation, print_prediction, print_table
from igcv.errors import InputError

if TYPE_CHECKING:
    from igcv.evaluation import ImagePrediction


def evaluate(
    weights: Weights,
    data: Annotated[
        str | None, typer.Option(help=f"data source, default: the data of the training run; {DATA_HELP}")
    ] = None,
    split: Split = None,
    part: Annotated[
        str, typer.Option(help="images to evaluate on: val, test (for the final accuracy) or train")
    ] = "val",
    match: Match = "name",
    batch_size: Annotated[int, typer.Option(help="batch size in images, per process")] = 128,
    workers: Annotated[int, typer.Option(help="data-loading workers")] = 0,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object")] = False,
) -> None:
    """Measure accuracy and loss on validation or test images, and recall, precision and F1 per class."""
    with progress_bar("images") if is_main() else nullcontext(None) as progress:
        import igcv

        result = igcv.evaluate(
            weights,
            data,
            split=split,
            part=part,
            match=match,
            batch_size=batch_size,
            workers=workers,
            device=device,
            progress=progress,
        )
    figures = {"weights": weights, "data": result.data, **({} if part == "val" else {"part": part})}
    figures |= result.as_dict()
    if not is_main():
        return
    for note in result.notes:
        (print_error if as_json else print_line)(note)
    if as_json:
        print(json.dumps(figures))
    else:
        print_evaluation({**figures, "data": result.data_name}, result.note)


def predict(
    weights: Weights,
    images: Annotated[
        list[str],
        typer.Argument(
            metavar="IMAGE|FOLDER|PATTERN|-...",
            help="image files, folders (searched recursively), patterns such as '*.jpg', or - for standard input",
        ),
    ],
    top: Annotated[int, typer.Option(help="number of top predictions per image", min=1)] = 5,
    threshold: Annotated[
        float, typer.Option(help="probability below which an image is 'unknown', 0 to 1", min=0, max=1)
    ] = 0.0,
    out: Annotated[
        Path | None, typer.Option(help="CSV table to write: file, class, probability, true class, error")
    ] = None,
    all_classes: Annotated[
        bool, typer.Option("--all", help="probability of every class as columns of --out")
    ] = False,
    force: Force = False,
    sort_into: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="empty or new folder for copies of the images, one subfolder per predicted class",
        ),
    ] = None,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per image")] = False,
) -> None:
    """Classify images and folders of images: print the most probable classes, or write a table.

    For an unreadable image, print one line on standard error, continue, and exit with status 2.

    Example: igcv predict runs/photos holiday --out predictions.csv --threshold 0.5
    """
    if all_classes and out is None:
        raise InputError("--all needs --out, the table to add columns to. Add --out predictions.csv")
    named, kept, counts = named_images(images), [], Counter[str]()
    printed = as_json or (out is None and sort_into is None)
    with progress_bar("images") as progress:
        check_targets(out, force, sort_into)
        shown = None if all_classes else top
        for entry in answers(named, weights, shown, threshold, device, progress):
            counts.update(images=1, unreadable=bool(entry.error))
            show(entry, as_json, printed, top)
            if out is not None or sort_into is not None:
                kept.append(entry)
    if out is not None:
        from igcv.evaluation import write_table

        write_table(kept, out, all_classes=all_classes, force=force)
        print_table(kept, out)
    if sort_into is not None:
        from igcv.evaluation import sort_into as copy_into

        print_copied(copy_into(kept, sort_into, force=force), sort_into)
    if counts["unreadable"]:
        raise InputError(f"{counts['unreadable']:,} of {counts['images']:,} images cannot be read")


def show(entry: "ImagePrediction", as_json: bool, printed: bool, top: int) -> None:
    """Print a prediction as JSON or, if `printed`, as text; always print the error of an unreadable image."""
    if entry.error:
        print_error(entry.error)
    if as_json:
        print_line(json.dumps(as_json_object(entry, top)))
    elif printed and not entry.error:
        print_prediction(entry)


def check_targets(out: Path | None, force: bool, sort_into: Path | None) -> None:
    """Raise InputError unless all outputs of the command can be written."""
    from igcv.evaluation.outputs import check_folder, check_table

    if out is not None:
        check_table(out, force)
    if sort_into is not None:
        check_folder(sort_into, force)


def answers(
    named: NamedImages,
    weights: str,
    top: int | None,
    threshold: float,
    device: str,
    progress: Callable[[int, int], None],
) -> "Iterator[ImagePrediction]":
    """Yield the prediction of each image as soon as it is ready, after the errors of missing images."""
    from igcv.engines.opened import note_of
    from igcv.evaluation import ImagePrediction, predict_in_batches
    from igcv.evaluation.predictions import skipped_images

    if note := note_of(weights):
        print_error(note)
    if skipped := skipped_images(named.found):
        print_error(skipped)
    batches = predict_in_batches(
        weights, named.found, top=top, threshold=threshold, device=device, progress=progress
    )
    named.check_any()
    for word, error in named.missing.items():
        yield ImagePrediction(word, "", None, None, (), error)
    for entry in chain.from_iterable(batches):
        yield entry if entry.file else replace(entry, file=STANDARD_INPUT)


def as_json_object(entry: "ImagePrediction", top: int) -> dict[str, Any]:
    """Return a prediction as the JSON object of --json."""
    if entry.error:
        return {"image": entry.file, "error": entry.error}
    answers = [
        {"class": guess.name, "probability": round(guess.probability, 6)} for guess in entry.predictions[:top]
    ]
    unknown = {"unknown": True} if entry.is_unknown else {}
    return {"image": entry.file, "predictions": answers, **unknown}
