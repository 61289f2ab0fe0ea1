"""The names of a network's tensors in pytorchcv, torchvision and timm, by the table that has MXNet's names."""

import re
from collections.abc import Collection, Iterable
from functools import cache
from typing import NamedTuple

import torch

from igcv.errors import InputError
from igcv.models import build_model
from igcv.models.igcv3 import TABLES
from igcv.weights.foreign.names import LAYERS, Layer

PROJECTS = ("pytorchcv", "torchvision", "timm")
# A network of each kind, as names depend on the blocks and not on the widths.
EXAMPLES = ("mobilenetv2_100", *(f"igcv3_{table}" for table in TABLES), "mobilenetv2_100_mxnet")
GROUPS = (1, 2, 3, 4, 4, 5, 5)  # pytorchcv counts stages of one image size as one
COUNTER = ".num_batches_tracked"  # PyTorch's, which older files lack
_NAME = re.compile(r"(?:stages\.(?P<stage>\d+)\.(?P<block>\d+)\.)?(?P<layer>[a-z]+)\.(?P<tensor>\S+)")
_ROWS: dict[str, Layer] = {row.igcv.rpartition(".")[2]: row for row in LAYERS}


class Names(NamedTuple):
    """The tensors of a network by both names.

    Attributes:
        project: whose names they are, one of `PROJECTS`.
        theirs: from our name to theirs, PyTorch's counters included.
    """

    project: str
    theirs: dict[str, str]


def names_in(project: str, ours: Collection[str]) -> dict[str, str]:
    """Return a project's names of the tensors of a network.

    Args:
        project: one of `PROJECTS`.
        ours: all names of the state_dict of an IGCV3 or a MobileNetV2.

    >>> names = names_in("pytorchcv", ["stages.0.0.project.conv.weight", "classifier.bias"])
    >>> names["stages.0.0.project.conv.weight"], names["classifier.bias"]
    ('features.stage1.unit1.conv3.conv.weight', 'output.bias')
    """
    blocks = [0] * len(GROUPS)
    for name in ours:
        if name.startswith("stages."):
            stage, block = map(int, name.split(".")[1:3])
            blocks[stage] = max(blocks[stage], block + 1)
    return {name: _translated(name, project, blocks, ours) for name in ours}


def _translated(name: str, project: str, blocks: list[int], ours: Collection[str]) -> str:
    match = _NAME.fullmatch(name)
    assert match is not None
    conv, norm = getattr(_ROWS[match["layer"]], project)
    kind, _, rest = match["tensor"].rpartition(".")
    template = f"{norm if kind == 'norm' else conv}.{rest}"
    words: dict[str, object] = {"last": sum(blocks) + 1}
    if match["stage"] is not None:
        words |= _place(int(match["stage"]), int(match["block"]), blocks, ours)
    return template.format_map(words)


def _place(stage: int, block: int, blocks: list[int], ours: Collection[str]) -> dict[str, object]:
    """The words of the templates for a block: how the projects count it, and the layers in it."""
    before = sum(n for n, group in zip(blocks[:stage], GROUPS, strict=False) if group == GROUPS[stage])
    first = int(
        f"stages.{stage}.{block}.expand.conv.weight" in ours
    )  # layers follow an expansion, if there is one
    return {
        "stage": stage,
        "block": block,
        "group": GROUPS[stage],
        "unit": before + block + 1,
        "place": sum(blocks[:stage]) + block + 1,
        "first": first,
        "second": first + 1,
        "third": first + 2,
        "project": "conv_pwl" if first else "conv_pw",
    }


@cache
def _known() -> tuple[Names, ...]:
    """The names of every kind of network in every project."""
    with torch.device("meta"):
        states = [tuple(build_model(example).state_dict()) for example in EXAMPLES]
    return tuple(Names(project, names_in(project, ours)) for ours in states for project in PROJECTS)


def names_of_file(where: str, given: Iterable[str]) -> Names:
    """Return the project and the kind of network whose names come nearest to those in a file.

    Raises:
        InputError: none has as many as half of them.
    """
    names = {name for name in given if not name.endswith(COUNTER)}
    nearest = max(_known(), key=lambda known: _distance(names, known))
    if 2 * len(names & set(nearest.theirs.values())) <= len(names):
        some = ", ".join(sorted(names)[:3]) or "no names at all"
        raise InputError(
            f"{where} is of no IGCV3 or MobileNetV2 of {', '.join(PROJECTS)}: it holds {some}; expected names such as "
            "features.init_block.conv.weight, features.0.0.weight or conv_stem.weight"
        )
    return nearest


def _distance(names: set[str], known: Names) -> tuple[int, int]:
    """How many names are shared, and less how many are not."""
    theirs = {name for name in known.theirs.values() if not name.endswith(COUNTER)}
    return len(names & theirs), -len(names ^ theirs)
