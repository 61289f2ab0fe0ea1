"""Arguments and options shared by several commands, and their parsing."""

import os
import re
from dataclasses import fields
from itertools import zip_longest
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperCommand

from igcv.errors import InputError

if TYPE_CHECKING:
    from igcv.training.draft import Draft
    from igcv.training.recipe import Recipe

DATA_HELP = (
    "digits, cifar10, cifar100 (or cifar10:PATH), tinyimagenet:PATH, folder:PATH (one folder per class), "
    "rec:TRAIN.rec,VAL.rec (MXNet RecordIO), timm/READER/NAME (timm data set), or train:SOURCE (only the training "
    "images of SOURCE)"
)
Weights = Annotated[
    str,
    typer.Argument(
        metavar="RUN|WEIGHTS",
        help="run folder, .safetensors file, exported file, or a weights name such as igcv3_d_100.imagenet "
        "(igcv models --pretrained)",
    ),
]
Device = Annotated[str, typer.Option(help="device: auto, cpu, cuda, cuda:N or mps")]
RecipeArguments = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="[RECIPE.toml] [key=value ...]", help="recipe file, and settings that override it"
    ),
]
Model = Annotated[str | None, typer.Option(help="network, e.g. igcv3_d_100 (igcv models lists all)")]
Data = Annotated[str | None, typer.Option(help=f"data source: {DATA_HELP}")]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.csv",
        help="CSV list of the images: columns path and label; optional columns split (train, val or test) and group "
        "(images of one group stay in one part)",
    ),
]
Match = Annotated[
    str,
    typer.Option(
        help="match of the data's classes with the network's: name (any order, any subset) or order"
    ),
]
Engine = Annotated[
    str | None,
    typer.Option(
        help="torch, onnx, openvino, litert, ncnn or executorch; default: torch, or the engine of an exported file"
    ),
]
FORM_HELP = (
    "implementation of the blocks: auto (measured on this machine), literal (the papers' layers), "
    "or a form such as dense, group_branches, partial_sums"
)
Form = Annotated[str, typer.Option(help=FORM_HELP)]
Threads = Annotated[int, typer.Option(help="threads of the engine", min=1)]
Force = Annotated[bool, typer.Option("--force", help="replace existing output")]
BatchOption = Annotated[int, typer.Option(help="batch size in images", min=1)]


class SettingsCommand(TyperCommand):
    """Command with key=value settings, which explains how to give a setting that is typed as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name for parameter in self.params for name in parameter.opts} | {"--help"}
        words = args[: args.index("--") if "--" in args else None]
        for word, following in zip_longest(words, words[1:], fillvalue="-"):
            name, equals, value = word.partition("=")
            if re.fullmatch(r"--?[A-Za-z][\w-]*", name) and name not in known:
                explain_option(name, value if equals else "VALUE" if following.startswith("-") else following)
        return super().parse_args(ctx, args)


def explain_option(name: str, value: str) -> None:
    """Raise InputError if an unknown option is a setting, or a common name of a setting or option."""
    from igcv.training.usual_names import USUAL_NAMES, our_name

    key = name.lstrip("-").replace("-", "_")
    meant = our_name(key) or (key if key in USUAL_NAMES or key in recipe_keys() else None)
    if meant is None:
        return
    if meant.startswith("--"):
        raise InputError(f"unknown option {name}; did you mean {meant}? (igcv train --help)")
    raise InputError(
        f"unknown option {name}. Give the setting {meant}={value} (igcv train --keys lists all settings)"
    )


def recipe_keys() -> set[str]:
    """Return all keys of a recipe."""
    from igcv.training.recipe import Recipe

    return {f.name for f in fields(Recipe)}


def is_main() -> bool:
    """Return whether this process prints: a single process, or rank 0 of torchrun."""
    return os.environ.get("RANK", "0") == "0"


def recipe_of(
    arguments: list[str] | None, resumed: Path | None = None, **given: str | None
) -> "Recipe | Draft":
    """Return the recipe of a command line: a recipe file, overridden by settings, overridden by options.

    Without a file, return a draft: its open settings follow from the data and the machine.

    Args:
        arguments: the words of `RecipeArguments`: an optional recipe file, then settings.
        resumed: recipe file of the resumed run, used if `arguments` names no file.
        given: options that are keys of a recipe; None if not given.
    """
    from igcv.training.draft import resolve_recipe
    from igcv.training.recipe_file import parse_settings

    words = arguments or []
    named = bool(words) and "=" not in words[0]
    settings = parse_settings(words[1:] if named else words)
    settings |= {key: value for key, value in given.items() if value is not None}
    return resolve_recipe(words[0] if named else resumed, settings)
