"""The commands that use a trained network: `igcv evaluate` and `igcv predict`."""

import json
from pathlib import Path
from typing import Annotated

import typer

from igcv.commands.options import DATA_HELP, Device, Split, Weights, is_main
from igcv.commands.terminal import print_evaluation, print_guesses


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
    """Measure top-1, top-5, loss and the accuracy of every class on validation or test images."""
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
        print_evaluation(figures)


def predict(
    weights: Weights,
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="image files")],
    top: Annotated[int, typer.Option(help="number of top predictions per image", min=1)] = 5,
    device: Device = "auto",
    as_json: Annotated[bool, typer.Option("--json", help="print one JSON object per image")] = False,
) -> None:
    """Classify images: the most probable classes of each, with their probabilities."""
    import igcv
    from igcv.machine.processes import choose_device

    classifier = igcv.load(weights, choose_device(device))
    for image, guesses in zip(images, classifier.predict(images, top), strict=True):
        if as_json:
            answers = [{"class": guess.name, "probability": round(guess.probability, 6)} for guess in guesses]
            print(json.dumps({"image": str(image), "predictions": answers}))
        else:
            print_guesses(str(image), guesses)
