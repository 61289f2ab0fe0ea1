"""The network that a checkpoint belongs to, from the names and shapes of its tensors."""

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
Told = Callable[[str], str]  # from our name of a tensor to that in the file, for messages


PERCENTS = sorted(range(5, 401), key=lambda percent: (abs(percent - 5 * round(percent / 5)), percent))


@dataclass(frozen=True)
class Recognized:
    """The network that a checkpoint belongs to.

    Attributes:
        model: its catalog name, width multiplier included.
        num_classes: outputs of the classifier.
        original_widths: whether it is a network of the IGCV3 authors' code ("_mxnet" at the end of the name).
    """

    model: str
    num_classes: int
    original_widths: bool


def recognize(shapes: Shapes) -> Recognized:
    """Find the network from the names and shapes of its tensors.

    The number of groups of a convolution follows from its weight, (out_channels, in_channels / groups, h, w).
    Of several width multipliers with the same widths the one nearest to a multiple of 0.05 is taken.

    Args:
        shapes: by MXNet's names, without "arg:" and "aux:". Names that no network has are skipped, and
            some may be missing: `from_mxnet` lists both.

    Raises:
        InputError: if they are of no network in the catalog; one that comes near is named.
    """
    naming = mxnet_names.naming_of(shapes)
    ours = {
        mxnet_names.to_igcv(n, naming): shape for n, shape in shapes.items() if mxnet_names.knows(n, naming)
    }
    return recognize_ours(ours, naming, partial(mxnet_names.to_mxnet, naming=naming))


def recognize_ours(ours: Shapes, naming: str, told: Told) -> Recognized:
    """`recognize` for shapes by our names.

    Args:
        ours: by our names.
        naming: the kind of network, a key of `igcv.weights.foreign.names.NAMINGS`.
        told: the name in the file, for messages.
    """
    num_classes = _shape(ours, told, "classifier.weight", 2)[0]
    nearest = ""
    for name in _seq_names(ours, told) if naming == "seq" else [_igcv1_name(ours, naming, told)]:
        conflict = _conflict(name, num_classes, ours, told)
        if not conflict:
            return Recognized(name, num_classes, name.endswith("_mxnet"))
        nearest = nearest or f"; not {name}: {conflict}"
    raise InputError(f"the tensors are of no network that igcv can build{nearest}")


def _shape(shapes: Shapes, told: Told, name: str, ndim: int = 4) -> tuple[int, ...]:
    """The shape of a tensor by which a network is recognized."""
    shape = shapes.get(name, ())
    if len(shape) != ndim or min(shape) < 1:
        found = f"has the shape {shape}" if name in shapes else "is missing"
        raise InputError(
            f"{told(name)}, by which networks are told apart, {found}; expected {ndim} dimensions"
        )
    return shape


def _blocks(shapes: Shapes) -> tuple[int, ...]:
    """Blocks per stage."""
    blocks = {tuple(map(int, name.split(".")[1:3])) for name in shapes if name.startswith("stages.")}
    counts = Counter(stage for stage, _ in blocks)
    return tuple(counts[stage] for stage in sorted(counts))


def _igcv1_name(shapes: Shapes, naming: str, told: Told) -> str:
    """IGCV1: L and M from the first 3x3 convolution that keeps its width, the depth from the blocks."""
    first = {"plain": "0.0", "ident": "0.0.conv1", "imagenet18": "0.1.conv1"}[naming]
    width, secondary, *_ = _shape(shapes, told, f"stages.{first}.convs.0.weight")
    name = f"igcv1_l{max(1, width // secondary)}m{secondary}"
    if naming == "imagenet18":
        return f"{name}_imagenet18"
    repeats = _blocks(shapes)[0]
    return f"{name}_d{3 * repeats + 2}" if naming == "plain" else f"{name}_d{6 * repeats + 2}_ident"


def _seq_names(shapes: Shapes, told: Told) -> Iterator[str]:
    """IGCV3 and MobileNetV2: the names at every width multiplier that comes near, the usual widths first."""
    before, last = (_shape(shapes, told, f"stages.{i}.0.project.conv.weight")[0] for i in (0, 6))
    expand, project = (
        _shape(shapes, told, f"stages.1.0.{part}.conv.weight") for part in ("expand", "project")
    )
    groups = max(1, before // expand[1]), max(1, expand[0] // project[1])
    tables, blocks = _tables(groups), _blocks(shapes)
    counts = {family: tuple(row.n for row in table) for family, table in tables.items()}
    if blocks not in counts.values():
        what = f"{blocks} blocks in its stages and {groups} groups in its pointwise convolutions"
        known = " or ".join(map(str, dict.fromkeys(counts.values())))
        raise InputError(f"igcv has no network of {what}; expected {known} blocks")
    off_by = 8 if groups == (1, 1) else math.lcm(*groups)  # at most, by rounding to multiples
    for suffix in ("", "_mxnet"):
        for family in (family for family in tables if counts[family] == blocks):
            full = tables[family][-1].c  # channels of the last stage at multiplier 1.0
            near = [percent for percent in PERCENTS if abs(full * percent / 100 - last) <= off_by]
            yield from (_listed_name(f"{family}_{percent:03d}") + suffix for percent in near)


def _listed_name(name: str) -> str:
    """Return the name under which the catalog lists a network: igcv3_d_p50 for igcv3_d_p50_100."""
    short = name.removesuffix("_100")
    return short if short in list_models() else name


def _tables(groups: tuple[int, int]) -> dict[str, tuple[Stage, ...]]:
    """Return the tables of the families with such groups in their pointwise convolutions, by name."""
    if groups == (1, 1):
        return {"mobilenetv2": MOBILENETV2}
    if groups == (2, 2):
        return {f"igcv3_{name}": table for name, table in TABLES.items()}
    return {f"igcv3_g{groups[0]}g{groups[1]}": TABLES["d"]}


def _conflict(name: str, num_classes: int, shapes: Shapes, told: Told) -> str:
    """Where a network differs from these shapes; empty if it does not."""
    try:
        with torch.device("meta"):
            tensors = build_model(name, num_classes).state_dict()
    except InputError as error:
        return str(error)
    for key, shape in shapes.items():
        expected = tuple(tensors[key].shape) if key in tensors else None
        if shape != expected:
            return f"its {told(key)} has the shape {expected}, but {shape} here"
    return ""
