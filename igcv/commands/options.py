"""Arguments and options that several commands share, and what becomes of them."""

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
    "digits, cifar10, cifar100 (or cifar10:PATH), tinyimagenet:PATH, folder:PATH with class folders, "
    "rec:TRAIN.rec,VAL.rec (MXNet RecordIO), timm/READER/NAME for what timm opens, or train:SOURCE for the training "
    "images of another alone"
)
Weights = Annotated[
    str,
    typer.Argument(
        metavar="RUN|WEIGHTS",
        help="run folder, .safetensors file, a file that igcv export wrote, or a name such as igcv3_d_100.imagenet "
        "(igcv models --pretrained)",
    ),
]
Device = Annotated[str, typer.Option(help="auto, cpu, cuda, cuda:N or mps")]
RecipeArguments = Annotated[
    list[str] | None,
    typer.Argument(metavar="[RECIPE.toml] [key=value ...]", help="a recipe file and changes to it"),
]
Model = Annotated[str | None, typer.Option(help="network, e.g. igcv3_d_100 (igcv models lists them)")]
Data = Annotated[str | None, typer.Option(help=DATA_HELP)]
Split = Annotated[
    str | None,
    typer.Option(
        metavar="FILE.csv",
        help="list of the images: columns path, label and, optionally, split (train, val, test) and group",
    ),
]
Match = Annotated[
    str,
    typer.Option(
        help="how the classes of the data are matched with the network's: name (in whatever order, also fewer of "
        "them) or order"
    ),
]
Engine = Annotated[
    str | None, typer.Option(help="torch, onnx or openvino; default: torch, and of a file its own")
]
Form = Annotated[
    str,
    typer.Option(
        help="how blocks are computed: auto measures on this machine, literal keeps the papers' layers, "
        "or a form such as dense, group_branches, partial_sums"
    ),
]
Threads = Annotated[int, typer.Option(help="threads of the engine", min=1)]
Force = Annotated[bool, typer.Option("--force", help="replace what is there already")]
BatchOption = Annotated[int, typer.Option(help="images at a time", min=1)]


class SettingsCommand(TyperCommand):
    """A command with settings as key=value, which says so where one is given as an option."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        known = {name for parameter in self.params for name in parameter.opts} | {"--help"}
        words = args[: args.index("--") if "--" in args else None]
        for word, following in zip_longest(words, words[1:], fillvalue="-"):
            name, equals, value = word.partition("=")
            if re.fullmatch(r"--?[A-Za-z][\w-]*", name) and name not in known:
                explain_option(name, value if equals else "VALUE" if following.startswith("-") else following)
        return super().parse_args(ctx, args)


def explain_option(name: str, value: str) -> None:
    """Raise InputError where an option that does not exist is a setting, or another option, by a usual name."""
    from igcv.training.usual_names import USUAL_NAMES, our_name

    key = name.lstrip("-").replace("-", "_")
    meant = our_name(key) or (key if key in USUAL_NAMES or key in recipe_keys() else None)
    if meant is None:
        return
    if meant.startswith("--"):
        raise InputError(f"there is no option {name}; did you mean {meant}? (igcv train --help)")
    raise InputError(
        f"there is no option {name}; give the setting {meant}={value} (igcv train --keys lists all settings)"
    )


def recipe_keys() -> set[str]:
    """The keys of a recipe."""
    from igcv.training.recipe import Recipe

    return {f.name for f in fields(Recipe)}


def is_main() -> bool:
    """Whether this is the process that prints: the only one, or torchrun's first."""
    return os.environ.get("RANK", "0") == "0"


def recipe_of(
    arguments: list[str] | None, resumed: Path | None = None, **given: str | None
) -> "Recipe | Draft":
    """Return the recipe of a command line: its file, if one comes first, then changes, then options.

    Without a file it is a draft, whose open settings follow from the data and the machine.

    Args:
        arguments: as of `RecipeArguments`.
        resumed: the recipe of the run that is resumed, where no other file is named.
        given: options that are keys of a recipe; None where they were not given.
    """
    from igcv.training.draft import resolve_recipe
    from igcv.training.recipe_file import parse_settings

    words = arguments or []
    named = bool(words) and "=" not in words[0]
    settings = parse_settings(words[1:] if named else words)
    settings |= {key: value for key, value in given.items() if value is not None}
    return resolve_recipe(words[0] if named else resumed, settings)
