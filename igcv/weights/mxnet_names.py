"""The names of a network's tensors in MXNet's checkpoints and here: one table, read in both directions.

The four forms of the released graphs:

- seq: IGCV3 and MobileNetV2, `seq-1-block2-exp-conv2d_weight` <-> `stages.1.2.expand.conv.weight`
- plain: IGCV1 for CIFAR, `g1_b1_conv1_weight` <-> `stages.0.0.convs.0.weight`
- ident: the same with identity shortcuts, `g1_b1_p2_two1_conv1_weight` <-> `stages.0.0.conv1.convs.0.weight`
- imagenet18: IGCV1 for ImageNet, `g1_b1_conv1_conv1_weight` <-> `stages.0.0.conv1.convs.0.weight`

PyTorch's `num_batches_tracked` has no counterpart in MXNet.
"""

import re
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from igcv.errors import InputError, unknown

# What a {norm} stands for: MXNet's words for the tensors of a batch norm, and PyTorch's.
NORM = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_var": "running_var"}

Row = tuple[str, str]  # a name in MXNet and here; what is in braces is in both


class Form(NamedTuple):
    """The names of one kind of network.

    Attributes:
        first: the number that MXNet's {stage}, {block} and {conv} start at; ours start at 0.
        rows: the names.
    """

    first: int
    rows: tuple[Row, ...]


def _unit(mxnet: str, igcv: str, conv: str = "_conv", norm: str = "_bn") -> tuple[Row, ...]:
    """The rows of a convolution with its batch norm."""
    return (
        (f"{mxnet}{conv}_weight", f"{igcv}.conv.weight"),
        (f"{mxnet}{norm}_{{norm}}", f"{igcv}.norm.{{norm}}"),
    )


def _seq(mxnet: str, igcv: str) -> tuple[Row, ...]:
    return _unit(mxnet, igcv, "-conv2d", "-batchnorm")


def _interleaved(mxnet: str, igcv: str) -> tuple[Row, ...]:
    """The rows of an IGC block: two convolutions, one batch norm."""
    return (
        (f"{mxnet}_conv{{conv}}_weight", f"{igcv}.convs.{{conv}}.weight"),
        (f"{mxnet}_bn_{{norm}}", f"{igcv}.norm.{{norm}}"),
    )


_MXNET, _IGCV = "g{stage}_b{block}", "stages.{stage}.{block}"
FORMS = {
    "seq": Form(
        0,
        (
            *_seq("first-3x3-conv", "stem"),
            *_seq("seq-{stage}-block{block}-exp", f"{_IGCV}.expand"),
            *_seq("seq-{stage}-block{block}-depthwise", f"{_IGCV}.depthwise"),
            *_seq("seq-{stage}-block{block}-linear", f"{_IGCV}.project"),
            *_seq("last-1x1-conv", "head"),
            ("fc_{part}", "classifier.{part}"),
        ),
    ),
    "plain": Form(
        1, (*_unit("g0", "stem"), *_interleaved(_MXNET, _IGCV), ("fc_score_{part}", "classifier.{part}"))
    ),
    "ident": Form(
        1,
        (
            *_unit("g0", "stem"),
            *_unit(f"{_MXNET}_p0_line", f"{_IGCV}.shortcut"),
            *_interleaved(f"{_MXNET}_p2_two{{half}}", f"{_IGCV}.conv{{half}}"),
            ("fc_{part}", "classifier.{part}"),
        ),
    ),
    "imagenet18": Form(
        1,
        (
            *_unit("g0", "stem.0"),
            *_unit(f"{_MXNET}_proj", f"{_IGCV}.shortcut"),
            *_interleaved(f"{_MXNET}_conv{{half}}", f"{_IGCV}.conv{{half}}"),
            ("fc_score_{part}", "classifier.{part}"),
        ),
    ),
}


def to_igcv(name: str, form: str) -> str:
    """Our name of a tensor.

    Args:
        name: in MXNet, without "arg:" or "aux:".
        form: a key of `FORMS`; see `form_of`.

    Raises:
        InputError: if the form has no such name.

    >>> to_igcv("seq-1-block2-exp-batchnorm_gamma", "seq")
    'stages.1.2.expand.norm.weight'
    """
    return _translate(name, form, 0)


def to_mxnet(name: str, form: str) -> str:
    """The inverse of `to_igcv`.

    >>> to_mxnet("stages.0.2.conv1.convs.0.weight", "ident")
    'g1_b3_p2_two1_conv1_weight'
    """
    return _translate(name, form, 1)


def graph_order(names: Iterable[str]) -> list[str]:
    """Our names, given in the order of a state_dict, in that of MXNet's graphs: a block's shortcut comes first.

    PyTorch's counters (num_batches_tracked) are left out.
    """
    names = [name for name in names if not name.endswith("num_batches_tracked")]
    blocks = {name: ".".join(name.split(".")[:3]) if name.startswith("stages.") else name for name in names}
    order = {block: position for position, block in enumerate(dict.fromkeys(blocks.values()))}
    return sorted(names, key=lambda name: (order[blocks[name]], ".shortcut." not in name))


def prefixed(name: str) -> str:
    """MXNet's name with the prefix it has in a checkpoint: "aux:" for a batch norm's statistics, else "arg:"."""
    return ("aux:" if name.endswith(("_moving_mean", "_moving_var")) else "arg:") + name


def form_of(names: Iterable[str]) -> str:
    """The form that knows most of the names, given in MXNet's words or in ours.

    Raises:
        InputError: if no form knows any.
    """
    names = list(names)
    known = {form: sum(knows(name, form) for name in names) for form in FORMS}
    best = max(known, key=lambda form: known[form])
    if not known[best]:
        some = ", ".join(names[:3]) or "no names at all"
        raise InputError(
            f"these are no names of IGCV1, IGCV3 or MobileNetV2: {some}; expected names such as "
            "first-3x3-conv-conv2d_weight or g0_conv_weight (in MXNet), or stem.conv.weight (in igcv)"
        )
    return best


def knows(name: str, form: str) -> bool:
    """Whether a form has a name, in MXNet's words or in ours."""
    return any(pattern.fullmatch(name) for row in _patterns(form) for pattern in row)


def _translate(name: str, form: str, side: int) -> str:
    if form not in FORMS:
        raise unknown("form of names", form, FORMS)
    first, rows = FORMS[form]
    for row, patterns in zip(rows, _patterns(form), strict=True):
        if match := patterns[side].fullmatch(name):
            shift = -first if side == 0 else first
            return row[1 - side].format_map(
                {key: _word(key, value, shift, side) for key, value in match.groupdict().items()}
            )
    other = ("our", "MXNet's")[side]
    raise InputError(f"'{name}' has no counterpart among {other} names of the form '{form}'")


def _word(key: str, value: str, shift: int, side: int) -> str:
    """What is in braces, on the other side."""
    if key == "norm":
        return NORM[value] if side == 0 else {ours: theirs for theirs, ours in NORM.items()}[value]
    return str(int(value) + shift) if key in ("stage", "block", "conv") else value


@cache
def _patterns(form: str) -> tuple[tuple[re.Pattern[str], re.Pattern[str]], ...]:
    """For every row the patterns of MXNet's name and of ours."""
    first, rows = FORMS[form]
    return tuple((_pattern(mxnet, first, NORM), _pattern(igcv, 0, NORM.values())) for mxnet, igcv in rows)


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
