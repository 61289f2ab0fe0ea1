"""Catalog of the networks by name."""

import fnmatch
import re
from collections.abc import Callable
from dataclasses import replace
from difflib import get_close_matches
from functools import partial
from typing import Any, NamedTuple

from igcv.errors import InputError, unknown
from igcv.models.igcv1 import igcv1_cifar, igcv1_imagenet
from igcv.models.igcv2 import igcv2_cifar, igcv2_mobilenet
from igcv.models.igcv3 import TABLES, igcv3
from igcv.models.mobilenetv2 import mobilenetv2
from igcv.models.network import Network, Options


class Family(NamedTuple):
    """Family of networks whose names follow one pattern.

    Attributes:
        pattern: regular expression for the names; its named groups are the numbers in a name.
        build: function that returns a builder of networks, given these numbers and a width multiplier if `scales`.
        scales: whether the family takes a width multiplier.
        input_size: side of the input images of the published network, in pixels.
        original: whether the MXNet code of the IGCV3 authors builds other widths; the suffix "_mxnet" selects them.
    """

    pattern: str
    build: Callable[..., Callable[..., Network]]
    scales: bool = True
    input_size: int = 224
    original: bool = False


OURS = r"igc|mobilenet(?!_?v[13-9])"  # prefix of the names of these families, in any spelling
FAMILIES = (
    Family(
        rf"igcv3_(?P<table>{'|'.join(TABLES)})",
        lambda table, multiplier, original: partial(igcv3, table, multiplier, original_widths=original),
        original=True,
    ),
    Family(
        r"igcv3_g(?P<g1>\d{1,2})g(?P<g2>\d{1,2})",
        lambda g1, g2, multiplier, original: partial(
            igcv3, "d", multiplier, (int(g1), int(g2)), original_widths=original
        ),
        original=True,
    ),
    Family(
        r"mobilenetv2",
        lambda multiplier, original: partial(mobilenetv2, multiplier, original),
        original=True,
    ),
    Family(r"igcv2_mobilenet", lambda multiplier: partial(igcv2_mobilenet, multiplier)),
    Family(
        r"igcv2_c(?P<width>\d{1,4})_d(?P<depth>\d{1,3})",
        lambda width, depth: partial(igcv2_cifar, int(width), int(depth)),
        scales=False,
        input_size=32,
    ),
    Family(
        r"igcv1_l(?P<primary>\d{1,4})m(?P<secondary>\d{1,4})_d(?P<depth>\d{1,3})(?P<identity>_ident)?",
        lambda primary, secondary, depth, identity: partial(
            igcv1_cifar, int(primary), int(secondary), int(depth), bool(identity)
        ),
        scales=False,
        input_size=32,
    ),
    Family(
        r"igcv1_l(?P<primary>\d{1,4})m(?P<secondary>\d{1,4})_imagenet18",
        lambda primary, secondary: partial(igcv1_imagenet, int(primary), int(secondary)),
        scales=False,
    ),
)

# The listed names. Other names that match the pattern of a family also work (igcv3_d_060, igcv1_l16m4_d38, ...).
NAMES = (
    *(f"igcv3_d_{width}" for width in ("025", "035", "050", "075", "100", "140")),
    *("igcv3_d_half", "igcv3_d_p50", "igcv3_d_p70", "igcv3_w_100", "igcv3_g2g4_100"),
    *("igcv2_c416_d20", "igcv2_c1280_d20", "igcv2_mobilenet_100"),
    *("igcv1_l24m2_d20", "igcv1_l24m2_d38", "igcv1_l8m4_d20_ident", "igcv1_l24m2_d20_ident"),
    *("igcv1_l4m32_imagenet18", "igcv1_l16m16_imagenet18", "igcv1_l100m2_imagenet18"),
    *(f"mobilenetv2_{width}" for width in ("025", "035", "050", "075", "100", "140")),
    "mobilenetv2_100_mxnet",
)


def list_models(pattern: str = "*") -> list[str]:
    """Return the sorted names that match a shell pattern such as "igcv3*"."""
    return sorted(fnmatch.filter(NAMES, pattern))


def build_model(
    name: str,
    num_classes: int = 1000,
    multiplier: float | None = None,
    input_size: int | None = None,
    **options: Any,
) -> Network:
    """Build a network by name, with random initialization.

    Args:
        name: a name of the catalog (`list_models()`), or a name of the same pattern with other numbers: the width
            multiplier in percent, as in igcv3_d_060; group counts, as in igcv3_g4g2_100; L, M and depth, as in
            igcv1_l16m4_d38; width and depth, as in igcv2_c128_d20. The suffix "_mxnet" gives an IGCV3 or MobileNetV2
            the widths of the IGCV3 authors' code, as in igcv3_d_140_mxnet.
        num_classes: number of classes; 0 returns pooled features.
        multiplier: width multiplier; replaces the multiplier in the name.
        input_size: side of the square input images, in pixels; None: the published size. For small images, some
            strides become 1.
        options: `in_chans`, `global_pool`, `drop_rate`, `drop_path_rate`, `output_stride`, `strides` (see `Options`).

    Raises:
        InputError: if the name is unknown, or its numbers define no valid network.

    >>> build_model("igcv3_d_100", num_classes=10).num_features
    1280
    """
    build = _builder(name, multiplier)
    return build(options=_options(num_classes=num_classes, input_size=input_size, **options))


def default_input_size(name: str) -> int:
    """Return the input size of the published network in pixels: 224, or 32 for the CIFAR networks."""
    return _parse(name)[0].input_size


def _parse(name: str) -> tuple[Family, dict[str, Any]]:
    """Return the family of a name and the numbers in the name; InputError if no family matches."""
    for family in FAMILIES:
        width = r"(?:_(?P<percent>\d{3}))?" if family.scales else ""
        suffix = r"(?P<original>_mxnet)?" if family.original else ""
        if match := re.fullmatch(family.pattern + width + suffix, name):
            return family, match.groupdict()
    if re.match(OURS, name.lower()) or get_close_matches(name, NAMES, n=1, cutoff=0.8):
        plain = re.sub(r"\W", "_", name.lower()).replace("_v2", "v2")
        meant = next((known for known in (plain, f"{plain}_100") if known in NAMES), None)
        raise unknown("model", name, NAMES, "igcv models lists them all", meant)
    raise InputError(
        f"unknown model '{name[:99]}': igcv has networks of the families IGCV1, IGCV2, IGCV3 and MobileNetV2 "
        "(igcv models lists them all)"
    )


def _builder(name: str, multiplier: float | None) -> Callable[..., Network]:
    """Return the builder of a named network, which takes `options`."""
    family, numbers = _parse(name)
    if family.original:
        numbers["original"] = numbers["original"] is not None
    percent = numbers.pop("percent", None)
    if family.scales:
        numbers["multiplier"] = multiplier if multiplier is not None else int(percent or 100) / 100
    elif multiplier is not None:
        raise InputError(
            f"multiplier: got {multiplier}, but the name '{name}' sets the width. Omit multiplier."
        )
    return family.build(**numbers)


def _options(**given: Any) -> Options:
    """Return Options from keyword arguments; InputError with the closest name for an unknown one."""
    known = Options.__dataclass_fields__
    for key in given:
        if key not in known:
            raise unknown("model option", key, known)
    if given.get("strides") is not None:
        given["strides"] = tuple(given["strides"])
    return replace(Options(), **given)
