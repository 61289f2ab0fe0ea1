"""Feature levels: one per resolution of a network, as timm's backbones have them."""

from collections.abc import Sequence
from typing import Any

from igcv.errors import InputError


def feature_levels(
    widths: Sequence[int], strides: Sequence[int], output_stride: int | None = None
) -> list[dict[str, Any]]:
    """Return timm's `feature_info`: per resolution, the channels, total stride and name of its last stage.

    A dilated network has the levels of the strided network, at most at the total stride `output_stride`.
    """
    reduction, *stage_strides = strides
    info: dict[int, dict[str, Any]] = {}
    for i, (width, stride) in enumerate(zip(widths, stage_strides, strict=True)):
        reduction *= stride
        level = {"num_chs": width, "reduction": min(reduction, output_stride or reduction)}
        info[reduction] = {**level, "module": f"stages.{i}"}
    return list(info.values())


def level_indices(what: str, given: int | Sequence[int] | None, count: int) -> list[int]:
    """Return the indices of levels, counted from the first.

    Args:
        what: name of the argument, for the message.
        given: the number of the last levels, or indices, from the end if negative; None: all levels.
        count: number of levels of the network.

    Raises:
        InputError: if the network has no such level.

    >>> level_indices("indices", 2, 5), level_indices("indices", (0, -1), 5)
    ([3, 4], [0, 4])
    """
    if given is None:
        return list(range(count))
    indices = range(-given, 0) if isinstance(given, int) else given
    if not indices or not all(-count <= index < count for index in indices):
        raise InputError(
            f"{what}: got {given}, expected a number of levels from 1 to {count}, or indices from {-count} to "
            f"{count - 1}: this network has {count} feature levels"
        )
    return [index % count for index in indices]
