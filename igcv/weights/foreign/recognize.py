"""Recognition of the network of a checkpoint from the names and shapes of its tensors."""

import math
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

import torch

from igcv.errors import InputError
from igcv.models import (
    build_model,
    list_models,
)
from igcv.models.igcv3 import TABLES
from igcv.models.inverted import Stage
from igcv.models.mobilenetv2 import TABLE as MOBILENETV2
from igcv.weights.foreign import names as mxnet_names

Shapes = dict[str, tuple[int, ...]]
Told = Callable[[str], str]  # maps a tensor name in igcv to the name in the file, for messages


PERCENTS = sorted(range(5, 401), key=lambda percent: (abs(percent - 5 * round(percent / 5)), percent))


@dataclass(frozen=True)
class Recognized:
    """Network of a checkpoint.

    Attributes:
        model: catalog name, including the width multiplier.
        num_classes: number of classes.
        original_widths: whether the network has the widths of the IGCV3 authors' code (suffix "_mxnet").
    """

    model: str
    num_classes: int
    original_widths: bool


def recognize(shapes: Shapes) -> Recognized:
    """Return the network of a checkpoint, recognized by the names and shapes of its tensors.

    The number of groups of a convolution follows from the shape of its weight, (out_channels, in_channels / groups, h,
    w). If several width multipliers give the same widths, the function takes the one nearest to a multiple of 0.05.

    Args:
        shapes: shapes by MXNet name, without "arg:" and "aux:". The function ignores unknown names and tolerates
            missing names; `from_mxnet` reports both.

    Raises:
        InputError: if no network of the catalog matches; the message gives a similar network.
    """
    naming = mxnet_names.naming_of(shapes)
    ours = {
        mxnet_names.to_igcv(n, naming): shape for n, shape in shapes.items() if mxnet_names.knows(n, naming)
    }
    return recognize_ours(ours, naming, partial(mxnet_names.to_mxnet, naming=naming))


def recognize_ours(ours: Shapes, naming: str, told: Told) -> Recognized:
    """Return the network of a checkpoint, given the shapes by igcv name; see `recognize`.

    Args:
        ours: shapes by igcv name.
        naming: the kind of network, a key of `igcv.weights.foreign.names.NAMINGS`.
        told: maps an igcv name to the name in the file, for messages.
    """
    num_classes = _shape(ours, told, "classifier.weight", 2)[0]
    nearest = ""
    for name in _seq_names(ours, told) if naming == "seq" else [_igcv1_name(ours, naming, told)]:
        conflict = _conflict(name, num_classes, ours, told)
        if not conflict:
            return Recognized(name, num_classes, name.endswith("_mxnet"))
        nearest = nearest or f"; the similar {name} differs: {conflict}"
    raise InputError(f"no igcv network matches these tensors{nearest}")


def _shape(shapes: Shapes, told: Told, name: str, ndim: int = 4) -> tuple[int, ...]:
    """Return the shape of a tensor that is necessary to recognize the network."""
    shape = shapes.get(name, ())
    if len(shape) != ndim or min(shape) < 1:
        found = f"got shape {shape}" if name in shapes else "missing"
        raise InputError(
            f"{told(name)}: {found}, expected {ndim} dimensions. igcv recognizes the network by this tensor"
        )
    return shape


def _blocks(shapes: Shapes) -> tuple[int, ...]:
    """Return the number of blocks per stage."""
    blocks = {tuple(map(int, name.split(".")[1:3])) for name in shapes if name.startswith("stages.")}
    counts = Counter(stage for stage, _ in blocks)
    return tuple(counts[stage] for stage in sorted(counts))


def _igcv1_name(shapes: Shapes, naming: str, told: Told) -> str:
    """Return the name of an IGCV1: L and M from the first 3x3 convolution of equal width, the depth from the blocks."""
    first = {"plain": "0.0", "ident": "0.0.conv1", "imagenet18": "0.1.conv1"}[naming]
    width, secondary, *_ = _shape(shapes, told, f"stages.{first}.convs.0.weight")
    name = f"igcv1_l{max(1, width // secondary)}m{secondary}"
    if naming == "imagenet18":
        return f"{name}_imagenet18"
    repeats = _blocks(shapes)[0]
    return f"{name}_d{3 * repeats + 2}" if naming == "plain" else f"{name}_d{6 * repeats + 2}_ident"


def _seq_names(shapes: Shapes, told: Told) -> Iterator[str]:
    """Yield names of IGCV3 or MobileNetV2 with a width multiplier close to the shapes, common multipliers first."""
    before, last = (_shape(shapes, told, f"stages.{i}.0.project.conv.weight")[0] for i in (0, 6))
    expand, project = (
        _shape(shapes, told, f"stages.1.0.{part}.conv.weight") for part in ("expand", "project")
    )
    groups = max(1, before // expand[1]), max(1, expand[0] // project[1])
    tables, blocks = _tables(groups), _blocks(shapes)
    counts = {family: tuple(row.n for row in table) for family, table in tables.items()}
    if blocks not in counts.values():
        known = " or ".join(map(str, dict.fromkeys(counts.values())))
        raise InputError(
            f"blocks per stage: got {blocks}, expected {known} for {groups} groups in the pointwise convolutions"
        )
    off_by = 8 if groups == (1, 1) else math.lcm(*groups)  # largest difference due to rounding to multiples
    for suffix in ("", "_mxnet"):
        for family in (family for family in tables if counts[family] == blocks):
            full = tables[family][-1].c  # channels of the last stage at multiplier 1.0
            near = [percent for percent in PERCENTS if abs(full * percent / 100 - last) <= off_by]
            yield from (_listed_name(f"{family}_{percent:03d}") + suffix for percent in near)


def _listed_name(name: str) -> str:
    """Return the listed name of a network: igcv3_d_p50 for igcv3_d_p50_100."""
    short = name.removesuffix("_100")
    return short if short in list_models() else name


def _tables(groups: tuple[int, int]) -> dict[str, tuple[Stage, ...]]:
    """Return the tables of the families with these groups in the pointwise convolutions, by name."""
    if groups == (1, 1):
        return {"mobilenetv2": MOBILENETV2}
    if groups == (2, 2):
        return {f"igcv3_{name}": table for name, table in TABLES.items()}
    return {f"igcv3_g{groups[0]}g{groups[1]}": TABLES["d"]}


def _conflict(name: str, num_classes: int, shapes: Shapes, told: Told) -> str:
    """Return the first difference between a network and these shapes, or an empty text."""
    try:
        with torch.device("meta"):
            tensors = build_model(name, num_classes).state_dict()
    except InputError as error:
        return str(error)
    for key, shape in shapes.items():
        expected = tuple(tensors[key].shape) if key in tensors else None
        if shape != expected:
            return f"shape of {told(key)}: got {shape}, expected {expected}"
    return ""
