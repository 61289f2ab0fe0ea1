"""The Typer app with all commands."""

import platform
from typing import Annotated

import typer

from igcv.commands.deploy import bench_latency, export
from igcv.commands.networks import convert, models, summary
from igcv.commands.options import SettingsCommand
from igcv.commands.printing.lines import print_line
from igcv.commands.train import bench_data, check, report, train
from igcv.commands.use import evaluate, predict
from igcv.commands.web import web
from igcv.version import __version__

app = typer.Typer(
    name="igcv",
    help="Interleaved group convolution networks: train, evaluate, predict, convert, export.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode="rich",
)
bench = typer.Typer(help="Measure speed on this machine.", no_args_is_help=True)
for command in (check, train, evaluate, report, predict, models, convert, summary, export, web):
    app.command(cls=SettingsCommand if command in (check, train) else None)(command)
app.add_typer(bench, name="bench")
bench.command("data", cls=SettingsCommand)(bench_data)
bench.command("latency")(bench_latency)


def _print_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version  # not at the start of every command

        print_line(f"igcv {__version__}")
        libraries = ", ".join(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm"))
        print_line(f"Python {platform.python_version()}, {libraries}")
        raise typer.Exit()


@app.callback()
def options(
    print_version: Annotated[
        bool,
        typer.Option("--version", help="print the versions and exit", is_eager=True, callback=_print_version),
    ] = False,
) -> None:
    """Interleaved group convolution networks: train, evaluate, predict, convert, export."""
