"""Table of the tensor names of networks in igcv and in other projects, for both directions.

`LAYERS` has the names of IGCV3 and MobileNetV2 in MXNet and in the PyTorch projects (see `torch_names`). The released
MXNet graphs have four namings:

- seq: IGCV3 and MobileNetV2, `seq-1-block2-exp-conv2d_weight` <-> `stages.1.2.expand.conv.weight`
- plain: IGCV1 for CIFAR, `g1_b1_conv1_weight` <-> `stages.0.0.convs.0.weight`
- ident: IGCV1 for CIFAR with identity shortcuts, `g1_b1_p2_two1_conv1_weight` <-> `stages.0.0.conv1.convs.0.weight`
- imagenet18: IGCV1 for ImageNet, `g1_b1_conv1_conv1_weight` <-> `stages.0.0.conv1.convs.0.weight`

PyTorch's `num_batches_tracked` has no counterpart in MXNet.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from torch import nn

from igcv.errors import InputError, differences, unknown

# Values of {norm}: the tensors of a batch norm in MXNet and in PyTorch.
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}

NamePair = tuple[str, str]  # a name in MXNet and in igcv, with the same fields in braces


class Naming(NamedTuple):
    """Names of one kind of network.

    Attributes:
        first: first number of {stage}, {block} and {conv} in MXNet; igcv counts from 0.
        pairs: pairs of names.
    """

    first: int
    pairs: tuple[NamePair, ...]


def _unit(mxnet: str, igcv: str, conv: str = "_conv", norm: str = "_bn") -> tuple[NamePair, ...]:
    """Return the name pairs of a convolution and its batch norm."""
    return (
        (f"{mxnet}{conv}_weight", f"{igcv}.conv.weight"),
        (f"{mxnet}{norm}_{{norm}}", f"{igcv}.norm.{{norm}}"),
    )


class Layer(NamedTuple):
    """Names of a layer of IGCV3 and MobileNetV2 in each project.

    The fields in braces differ by block. `stage` and `block` count from 0; `igcv.weights.foreign.torch_names` defines
    the other fields.

    Attributes:
        igcv, mxnet: name of the convolution with its batch norm.
        pytorchcv, torchvision, timm: names of the convolution and of its batch norm; empty without a batch norm.
    """

    igcv: str
    mxnet: str
    pytorchcv: tuple[str, str]
    torchvision: tuple[str, str]
    timm: tuple[str, str]


def _layer(
    igcv: str, mxnet: str, pytorchcv: str, torchvision: tuple[str, str], timm: tuple[str, str]
) -> Layer:
    return Layer(igcv, mxnet, (f"{pytorchcv}.conv", f"{pytorchcv}.bn"), torchvision, timm)


def _interleaved(mxnet: str, igcv: str) -> tuple[NamePair, ...]:
    """Return the name pairs of an IGC block: two convolutions, one batch norm."""
    return (
        (f"{mxnet}_conv{{conv}}_weight", f"{igcv}.convs.{{conv}}.weight"),
        (f"{mxnet}_bn_{{norm}}", f"{igcv}.norm.{{norm}}"),
    )


_MXNET, _IGCV = "g{stage}_b{block}", "stages.{stage}.{block}"
_SEQ, _UNIT = "seq-{stage}-block{block}", "features.stage{group}.unit{unit}"  # blocks in MXNet and pytorchcv
_VISION, _TIMM = "features.{place}.conv", "blocks.{stage}.{block}"
LAYERS = (
    _layer(
        "stem",
        "first-3x3-conv",
        "features.init_block",
        ("features.0.0", "features.0.1"),
        ("conv_stem", "bn1"),
    ),
    _layer(
        f"{_IGCV}.expand",
        f"{_SEQ}-exp",
        f"{_UNIT}.conv1",
        (f"{_VISION}.0.0", f"{_VISION}.0.1"),
        (f"{_TIMM}.conv_pw", f"{_TIMM}.bn1"),
    ),
    _layer(
        f"{_IGCV}.depthwise",
        f"{_SEQ}-depthwise",
        f"{_UNIT}.conv2",
        (f"{_VISION}.{{first}}.0", f"{_VISION}.{{first}}.1"),
        (f"{_TIMM}.conv_dw", f"{_TIMM}.bn{{second}}"),
    ),
    _layer(
        f"{_IGCV}.project",
        f"{_SEQ}-linear",
        f"{_UNIT}.conv3",
        (f"{_VISION}.{{second}}", f"{_VISION}.{{third}}"),
        (f"{_TIMM}.{{project}}", f"{_TIMM}.bn{{third}}"),
    ),
    _layer(
        "head",
        "last-1x1-conv",
        "features.final_block",
        ("features.{last}.0", "features.{last}.1"),
        ("conv_head", "bn2"),
    ),
    Layer("classifier", "fc", ("output", ""), ("classifier.1", ""), ("classifier", "")),
)
NAMINGS = {
    "seq": Naming(
        0,
        (
            *(pair for row in LAYERS[:-1] for pair in _unit(row.mxnet, row.igcv, "-conv2d", "-batchnorm")),
            ("fc_{part}", "classifier.{part}"),
        ),
    ),
    "plain": Naming(
        1, (*_unit("g0", "stem"), *_interleaved(_MXNET, _IGCV), ("fc_score_{part}", "classifier.{part}"))
    ),
    "ident": Naming(
        1,
        (
            *_unit("g0", "stem"),
            *_unit(f"{_MXNET}_p0_line", f"{_IGCV}.shortcut"),
            *_interleaved(f"{_MXNET}_p2_two{{half}}", f"{_IGCV}.conv{{half}}"),
            ("fc_{part}", "classifier.{part}"),
        ),
    ),
    "imagenet18": Naming(
        1,
        (
            *_unit("g0", "stem.0"),
            *_unit(f"{_MXNET}_proj", f"{_IGCV}.shortcut"),
            *_interleaved(f"{_MXNET}_conv{{half}}", f"{_IGCV}.conv{{half}}"),
            ("fc_score_{part}", "classifier.{part}"),
        ),
    ),
}


def to_igcv(name: str, naming: str) -> str:
    """Return the name of a tensor in igcv.

    Args:
        name: name in MXNet, without "arg:" or "aux:".
        naming: a key of `NAMINGS`; see `naming_of`.

    Raises:
        InputError: if the naming does not contain the name.

    >>> to_igcv("seq-1-block2-exp-batchnorm_gamma", "seq")
    'stages.1.2.expand.norm.weight'
    """
    return _translate(name, naming, 0)


def to_mxnet(name: str, naming: str) -> str:
    """Return the name of a tensor in MXNet: the inverse of `to_igcv`.

    >>> to_mxnet("stages.0.2.conv1.convs.0.weight", "ident")
    'g1_b3_p2_two1_conv1_weight'
    """
    return _translate(name, naming, 1)


def graph_order(names: Iterable[str]) -> list[str]:
    """Sort the names of a state_dict in the order of MXNet graphs: the shortcut of a block comes first.

    The result omits the counters of PyTorch (num_batches_tracked).
    """
    names = [name for name in names if not name.endswith("num_batches_tracked")]
    blocks = {name: ".".join(name.split(".")[:3]) if name.startswith("stages.") else name for name in names}
    order = {block: position for position, block in enumerate(dict.fromkeys(blocks.values()))}
    return sorted(names, key=lambda name: (order[blocks[name]], ".shortcut." not in name))


def prefixed(name: str) -> str:
    """Return an MXNet name with its prefix in a checkpoint: "aux:" for batch-norm statistics, otherwise "arg:"."""
    return ("aux:" if name.endswith(("_moving_mean", "_moving_var")) else "arg:") + name


def naming_of(names: Iterable[str]) -> str:
    """Return the naming that contains most of the names, which may be names in MXNet or in igcv.

    Raises:
        InputError: if no naming contains any of the names.
    """
    names = list(names)
    known = {naming: sum(knows(name, naming) for name in names) for naming in NAMINGS}
    best = max(known, key=lambda naming: known[naming])
    if not known[best]:
        some = ", ".join(names[:3]) or "no names"
        raise InputError(
            f"tensor names: got {some}, expected names of IGCV1, IGCV3 or MobileNetV2 such as "
            "first-3x3-conv-conv2d_weight or g0_conv_weight (in MXNet), or stem.conv.weight (in igcv)"
        )
    return best


def knows(name: str, naming: str) -> bool:
    """Return whether a naming contains a name of MXNet or igcv."""
    return any(pattern.fullmatch(name) for pair in _patterns(naming) for pattern in pair)


def _translate(name: str, naming: str, side: int) -> str:
    if naming not in NAMINGS:
        raise unknown("naming", naming, NAMINGS)
    first, pairs = NAMINGS[naming]
    for pair, patterns in zip(pairs, _patterns(naming), strict=True):
        if match := patterns[side].fullmatch(name):
            shift = -first if side == 0 else first
            return pair[1 - side].format_map(
                {key: _word(key, value, shift, side) for key, value in match.groupdict().items()}
            )
    other = ("igcv", "MXNet")[side]
    raise InputError(f"'{name}' has no counterpart in {other} in the naming '{naming}'")


def _word(key: str, value: str, shift: int, side: int) -> str:
    """Return the value of a field in the other name."""
    if key == "norm":
        return NORM[value] if side == 0 else {ours: theirs for theirs, ours in NORM.items()}[value]
    return str(int(value) + shift) if key in ("stage", "block", "conv") else value


@cache
def _patterns(naming: str) -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    """Return the patterns of the MXNet name and the igcv name for each pair."""
    first, pairs = NAMINGS[naming]
    return tuple((_pattern(mxnet, first, NORM), _pattern(igcv, 0, NORM.values())) for mxnet, igcv in pairs)


def _pattern(template: str, first: int, norm: Iterable[str]) -> re.Pattern[str]:
    number = r"[1-9]\d{0,2}" if first else r"0|[1-9]\d{0,2}"
    fields = {
        "stage": number,
        "block": number,
        "conv": f"[{first}{first + 1}]",  # an IGC block has two convolutions
        "half": "[12]",
        "norm": "|".join(norm),
        "part": "weight|bias",
    }
    texts = re.split(r"\{(\w+)\}", template)
    parts = (re.escape(t) if i % 2 == 0 else f"(?P<{t}>{fields[t]})" for i, t in enumerate(texts))
    return re.compile("".join(parts))


def names_of(model: nn.Module, naming: str) -> list[str]:
    """Return the names of the tensors of a network in MXNet."""
    return [to_mxnet(name, naming) for name in graph_order(model.state_dict())]


def check_same_names(where: str, expected: Iterable[str], given: Iterable[str]) -> None:
    """Raise InputError with the differences unless the names are equal."""
    missing, surplus = sorted(set(expected) - set(given)), sorted(set(given) - set(expected))
    if difference := differences({"missing": missing, "unexpected": surplus}, 12):
        raise InputError(
            f"{where}: the names differ from the network ({difference}). Check that the file is complete."
        )
