"""Tensor names of networks in pytorchcv, torchvision and timm, from the table `igcv.weights.foreign.names.LAYERS`."""

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
# One network of each kind: names depend on the blocks, not on the widths.
EXAMPLES = ("mobilenetv2_100", *(f"igcv3_{table}" for table in TABLES), "mobilenetv2_100_mxnet")
GROUPS = (
    1,
    2,
    3,
    4,
    4,
    5,
    5,
)  # pytorchcv's stage of each stage of igcv: consecutive stages with the same image size are one
COUNTER = ".num_batches_tracked"  # a counter of PyTorch, missing in older files
_NAME = re.compile(r"(?:stages\.(?P<stage>\d+)\.(?P<block>\d+)\.)?(?P<layer>[a-z]+)\.(?P<tensor>\S+)")
_ROWS: dict[str, Layer] = {row.igcv.rpartition(".")[2]: row for row in LAYERS}


class Names(NamedTuple):
    """Tensor names of a network in igcv and in another project.

    Attributes:
        project: the other project, one of `PROJECTS`.
        theirs: igcv name -> name in the project, including the counters of PyTorch.
    """

    project: str
    theirs: dict[str, str]


def names_in(project: str, ours: Collection[str]) -> dict[str, str]:
    """Return the tensor names of a network in another project, by igcv name.

    Args:
        project: one of `PROJECTS`.
        ours: all names in the state_dict of an IGCV3 or a MobileNetV2.

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
    """Return the values of the template fields for a block."""
    before = sum(n for n, group in zip(blocks[:stage], GROUPS, strict=False) if group == GROUPS[stage])
    first = int(
        f"stages.{stage}.{block}.expand.conv.weight" in ours
    )  # 1 if the block has an expansion, which is then its first layer
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
    """Return the names of each kind of network in each project."""
    with torch.device("meta"):
        states = [tuple(build_model(example).state_dict()) for example in EXAMPLES]
    return tuple(Names(project, names_in(project, ours)) for ours in states for project in PROJECTS)


def names_of_file(where: str, given: Iterable[str]) -> Names:
    """Return the names of the project and the kind of network with the best match to the names in a file.

    Raises:
        InputError: if the best match contains at most half of the names.
    """
    names = {name for name in given if not name.endswith(COUNTER)}
    nearest = max(_known(), key=lambda known: _distance(names, known))
    if 2 * len(names & set(nearest.theirs.values())) <= len(names):
        some = ", ".join(sorted(names)[:3]) or "no names"
        raise InputError(
            f"tensor names in '{where}': got {some}, expected an IGCV3 or MobileNetV2 of {', '.join(PROJECTS)}, with "
            "names such as features.init_block.conv.weight, features.0.0.weight or conv_stem.weight"
        )
    return nearest


def _distance(names: set[str], known: Names) -> tuple[int, int]:
    """Return the number of common names, and the negative number of different names."""
    theirs = {name for name in known.theirs.values() if not name.endswith(COUNTER)}
    return len(names & theirs), -len(names ^ theirs)
