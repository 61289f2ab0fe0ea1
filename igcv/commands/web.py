"""The command that puts a network into a web page: `igcv web`."""

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
            metavar="RUN|WEIGHTS|PAGE", help="run folder, .safetensors file, or a page to serve again"
        ),
    ],
    out: Annotated[Path | None, typer.Option(help="folder to write the page to")] = None,
    calibrate: Annotated[
        str | None,
        typer.Option(help="images to quantize with, for int8; default: the data of the training run"),
    ] = None,
    examples: Annotated[
        bool | None,
        typer.Option(
            "--examples/--no-examples",
            help="put eight validation images into the page; default: only those of digits, CIFAR and Tiny-ImageNet",
        ),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="replace the page that is in --out already")] = False,
    serve: Annotated[
        int | None,
        typer.Option(metavar="PORT", help="serve the page on this machine until Ctrl-C", min=0, max=65535),
    ] = None,
) -> None:
    """Write a web page that classifies pictures on the visitor's own machine, in float32 and int8.

    The folder is all there is to it: any web server can show it, and nothing else is contacted.

    Example: igcv web runs/digits --out page --serve 8000
    """
    from igcv.web.server import serve as serve_until_interrupted

    page = Path(weights)
    if not (page / "page.json").is_file():
        page = build(weights, out, calibrate, examples, force)
    elif any(option is not None for option in (out, calibrate, examples)) or force or serve is None:
        raise InputError(
            f"{weights} is a page already; serve it with --serve PORT and no other option, "
            "or give the run folder or weights that it came from"
        )
    if serve is not None:
        serve_until_interrupted(page, serve, print_line)


def build(weights: str, out: Path | None, calibrate: str | None, examples: bool | None, force: bool) -> Path:
    """Write the page and tell what is in it."""
    import igcv

    if out is None:
        raise InputError(f"{weights} becomes a page in a folder of its own; name it with --out DIR")
    page = igcv.write_page(weights, out, calibrate=calibrate, examples=examples, force=force, say=print_line)
    print_page(page)
    return page.folder
