"""The command `igcv web`."""

from pathlib import Path
from typing import Annotated

import typer

from igcv.commands.printing.deploy import print_page
from igcv.commands.printing.lines import print_line
from igcv.errors import InputError


def web(
    weights: Annotated[
        str,
        typer.Argument(
            metavar="RUN|WEIGHTS|PAGE",
            help="run folder, .safetensors file, weights name, or folder of an existing page to serve",
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="folder to write the page to")] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="calibration images for int8; default: the data of the training run"),
    ] = None,
    examples: Annotated[
        bool | None,
        typer.Option(
            "--examples/--no-examples",
            help="eight validation images as examples in the page; default: only for digits, CIFAR and Tiny-ImageNet",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace an existing page in --out")] = False,
    serve: Annotated[
        int | None,
        typer.Option(
            metavar="PORT",
            help="local port to serve the page on until Ctrl-C; 0: any free port",
            min=0,
            max=65535,
        ),
    ] = None,
) -> None:
    """Write a web page that classifies pictures in the visitor's browser, in float32 and int8.

    The page is a static folder for any web server. It sends no requests to other servers.

    Example: igcv web runs/digits --out page --serve 8000
    """
    from igcv.web.server import serve as serve_until_interrupted

    page = Path(weights)
    if not (page / "page.json").is_file():
        page = build(weights, out, calibrate, examples, force)
    elif any(option is not None for option in (out, calibrate, examples)) or force or serve is None:
        raise InputError(
            f"'{weights}' is already a page, expected a run folder or weights. "
            "To serve the page, give --serve PORT and no other option"
        )
    if serve is not None:
        serve_until_interrupted(page, serve, print_line)


def build(weights: str, out: Path | None, calibrate: str | None, examples: bool | None, force: bool) -> Path:
    """Write the page, print its contents, and return its folder."""
    import igcv

    if out is None:
        raise InputError("--out is missing, expected a folder for the page. Add --out DIR")
    page = igcv.write_page(weights, out, calibrate=calibrate, examples=examples, force=force, say=print_line)
    print_page(page)
    return page.folder
