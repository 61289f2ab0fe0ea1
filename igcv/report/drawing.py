"""Block drawings in the style of the papers: channels as dots, groups as boxes, permutations as colored wires."""

import itertools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch

from igcv.errors import InputError

MOST = 24  # legible channels per column; wider blocks are drawn reduced
FEW = 4  # a reduced form keeps the number of groups up to this, if possible
SAME_PATHS = 4  # a reduced form keeps the paths per channel pair if they are fewer than this
COLORS = ("#3465a4", "#cc6600", "#3d8f2e", "#a03070", "#8a7a00", "#1f8f8f", "#7050b0", "#b03030")
INK, GRAY = "#202020", "#606060"
STEP, HEIGHT = 2.2, 5.0  # width of a layer and height of the columns, in inches
PICTURE_FORMATS = (".svg", ".png", ".pdf")


class Layer(NamedTuple):
    """A group convolution, or a permutation if `kernel` is 0."""

    in_channels: int
    out_channels: int
    groups: int
    kernel: int

    @property
    def channel_wise(self) -> bool:
        return self.kernel > 0 and self.groups == self.in_channels == self.out_channels

    @property
    def label(self) -> str:
        """The name of the layer in the papers."""
        if not self.kernel:
            return "permutation"
        size = f"{self.kernel}×{self.kernel}"  # noqa: RUF001
        if self.channel_wise:
            return f"channel-wise {size}"
        return f"group {size}, G = {self.groups}" if self.groups > 1 else f"dense {size}"


def draw_block(block_rows: Sequence[Sequence[str | int]], path: Path, title: str = "") -> None:
    """Draw a block, from its input channels on the left to its output channels on the right.

    Args:
        block_rows: the layers in order: ("conv", in_channels, out_channels, groups, kernel_size), or
            ("permute", channels, groups), which moves channel g * C/G + i to i * G + g.
        path: the file to write, .svg, .png or .pdf. SVG elements have the ids dot-COLUMN-CHANNEL, box-LAYER-GROUP
            and wire-LAYER-CHANNEL, counted from 0.
        title: title above the drawing.
    """
    if path.suffix.lower() not in PICTURE_FORMATS:
        raise InputError(
            f"cannot draw to '{path}': expected a name that ends in {', '.join(PICTURE_FORMATS)}"
        )
    layers = [layer_from(row) for row in block_rows]
    # Keep text as text, and make the file reproducible.
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "igcv", "font.family": "DejaVu Sans"}):
        figure = _figure(layers, reduced(layers), title)
        figure.savefig(path, dpi=110, metadata={"Date": None} if path.suffix.lower() == ".svg" else None)


def _figure(layers: Sequence[Layer], drawn: Sequence[Layer], title: str) -> Figure:
    """Return a figure of the `drawn` form, with the labels of the block's original `layers`."""
    width = STEP * len(layers)
    figure = Figure(figsize=(width + 1.0, HEIGHT + 1.4), facecolor="white")
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set(xlim=(-0.5, width + 0.5), ylim=(HEIGHT + 0.75, -0.65))
    axes.axis("off")
    for i, (layer, small) in enumerate(zip(layers, drawn, strict=True)):
        draw = _draw_boxes if layer.kernel else _draw_wires
        draw(axes, i, small)
        axes.text((i + 0.5) * STEP, -0.18, layer.label, ha="center", color=INK, fontsize=10)
    for i, (channels, small_channels) in enumerate(zip(_columns(layers), _columns(drawn), strict=True)):
        _draw_column(axes, i, channels, small_channels)
    axes.text(width / 2, HEIGHT + 0.58, _caption(layers, drawn), ha="center", color=GRAY, fontsize=9)
    axes.text(width / 2, -0.46, title, ha="center", color=INK, fontsize=12, weight="bold")
    return figure


def _columns(layers: Sequence[Layer]) -> list[int]:
    """Return the number of channels before, between and after the layers."""
    return [layers[0].in_channels, *(layer.out_channels for layer in layers)]


def layer_from(row: Sequence[str | int]) -> Layer:
    """Return the Layer of a row of `draw_block`."""
    kind, *numbers = row
    match kind, [int(number) for number in numbers]:
        case "conv", [in_channels, out_channels, groups, kernel]:
            return Layer(in_channels, out_channels, groups, kernel)
        case "permute", [channels, groups]:
            return Layer(channels, channels, groups, 0)
    raise InputError(
        f"layer: got {tuple(row)}, expected ('conv', in, out, groups, kernel) or ('permute', channels, groups)"
    )


def _height(channel: float, channels: int) -> float:
    """Return the y position of a channel's dot; columns span the full height, so that equal groups align."""
    return (channel + 0.5) / channels * HEIGHT


def _draw_boxes(axes: Axes, index: int, layer: Layer) -> None:
    """Draw the groups of a convolution between column `index` and the next."""
    tall = HEIGHT / layer.groups
    gap = min(0.12 * tall, 0.06)
    for group in range(layer.groups):
        color = GRAY if layer.channel_wise or layer.groups == 1 else COLORS[group % len(COLORS)]
        box = FancyBboxPatch(
            (index * STEP + 0.05, group * tall + gap),
            STEP - 0.1,
            tall - 2 * gap,
            boxstyle=f"round,pad=0,rounding_size={min(0.1, tall / 3)}",
            facecolor=color + "38",
            edgecolor=color,
            linewidth=1,
        )
        box.set_gid(f"box-{index}-{group}")
        axes.add_patch(box)


def _draw_wires(axes: Axes, index: int, layer: Layer) -> None:
    """Draw a permutation between column `index` and the next."""
    channels, size = layer.in_channels, layer.in_channels // layer.groups
    for channel in range(channels):
        group, i = divmod(channel, size)
        heights = (_height(channel, channels), _height(i * layer.groups + group, channels))
        wire = Line2D((index * STEP, (index + 1) * STEP), heights, linewidth=1.3)
        wire.set(color=COLORS[group % len(COLORS)], gid=f"wire-{index}-{channel}")
        axes.add_line(wire)


def _draw_column(axes: Axes, column: int, width: int, drawn: int) -> None:
    """Draw the dots of a column, and below them the original number of channels."""
    for channel in range(drawn):
        dot = Line2D((column * STEP,), (_height(channel, drawn),), marker="o", markersize=4.5, color=INK)
        dot.set(gid=f"dot-{column}-{channel}", zorder=3)
        axes.add_line(dot)
    axes.text(column * STEP, HEIGHT + 0.27, f"{width}", ha="center", color=INK, fontsize=10)


def _caption(layers: Sequence[Layer], drawn: Sequence[Layer]) -> str:
    """Return the caption, which states how the drawing differs from the block."""
    if list(layers) == list(drawn):
        return "all channels drawn"
    convs = [i for i, layer in enumerate(layers) if layer.kernel and not layer.channel_wise]
    fewer = [
        f"{drawn[i].groups} of {layers[i].groups} groups"
        for i in convs
        if drawn[i].groups != layers[i].groups
    ]
    text = f"reduced: {_widest(drawn)} of {_widest(layers)} channels drawn"
    return f"{text}; {', '.join(fewer)}" if fewer else f"{text}; same groups"


def reduced(layers: Sequence[Layer]) -> list[Layer]:
    """Return a block of about `MOST` channels at most with the connectivity of `layers`; `layers` if small enough."""
    if _widest(layers) <= MOST:
        return list(layers)
    paths = math.prod(_branch_width(layer) for layer in layers) / layers[0].in_channels
    if paths in range(1, SAME_PATHS):
        return _with_smaller_branches(layers, int(paths))
    return _with_fewer_channels(layers)


def _widest(layers: Sequence[Layer]) -> int:
    return max(_columns(layers))


def _branch_width(layer: Layer) -> int:
    """Return the input channels per group of a convolution; 1 for a permutation."""
    return layer.in_channels // layer.groups if layer.kernel else 1


def _with_smaller_branches(layers: Sequence[Layer], paths: int) -> list[Layer]:
    """Reduce a block to smaller branches with the same number of `paths`.

    The product of the branch widths stays `paths` times the width. All widths keep their ratios. Among the widest such
    blocks, prefer the block that keeps layers of few groups, then the block whose branches shrink most evenly.
    """
    width = layers[0].in_channels
    branches = [_branch_width(layer) for layer in layers]
    # Every smaller width is a multiple of the unit.
    unit = width // math.gcd(width, *(layer.out_channels for layer in layers))

    def rank(smaller: tuple[int, ...]) -> tuple[int, int, float]:
        narrow = math.prod(smaller) // paths
        groups = [x.in_channels * narrow // width // s for x, s in zip(layers, smaller, strict=True)]
        lost = sum(x.groups <= FEW and x.groups != g for x, g in zip(layers, groups, strict=True))
        return -narrow, lost, max(k / s for k, s in zip(branches, smaller, strict=True))

    limit = paths * MOST * width // _widest(layers)
    fits: list[tuple[int, ...]] = []
    while not fits:
        fits = [s for s in _smaller(branches, limit) if math.prod(s) % (paths * unit) == 0]
        limit += paths
    best = min(fits, key=rank)
    narrow = math.prod(best) // paths
    widths = [narrow] + [layer.out_channels * narrow // width for layer in layers]
    return _rebuilt(layers, widths, [w // b for w, b in zip(widths, best, strict=False)])


def _smaller(branches: Sequence[int], limit: int) -> Iterator[tuple[int, ...]]:
    """Yield all tuples of numbers from 2 (1 for a branch of 1) to `branches` with a product of up to `limit`."""
    if not branches:
        yield ()
        return
    for first in range(min(branches[0], 2), min(branches[0], limit) + 1):
        yield from ((first, *rest) for rest in _smaller(branches[1:], limit // first))


def _with_fewer_channels(layers: Sequence[Layer]) -> list[Layer]:
    """Reduce a block of many paths: proportionally fewer channels, and the same groups unless there are too many."""
    for most_groups in range(max(layer.groups for layer in layers), 0, -1):
        groups = [1 if layer.channel_wise else min(layer.groups, most_groups) for layer in layers]
        multiples = _multiples(layers, groups)
        if max(multiples) <= MOST:
            break
    same_groups = all(
        layer.channel_wise or layer.groups == g for layer, g in zip(layers, groups, strict=True)
    )
    widths = []
    for width, multiple in zip(
        [layers[0].in_channels, *(x.out_channels for x in layers)], multiples, strict=True
    ):
        rest = width % multiple if same_groups else 0  # keep an uneven connection uneven
        times = round((width * MOST / _widest(layers) - rest) / multiple)
        times = max(min(times, (MOST - rest) // multiple), 0 if rest else 1)
        widths.append(rest + times * multiple)
    return _rebuilt(layers, widths, groups)


def _multiples(layers: Sequence[Layer], groups: Sequence[int]) -> list[int]:
    """Return for each column a divisor of its channels that connects all groups evenly."""
    runs = [[0]]  # groups of columns with equal width
    factors = [1]
    for i, (layer, g) in enumerate(zip(layers, groups, strict=True)):
        if layer.kernel and not layer.channel_wise:
            factors[-1] *= g
            runs.append([])
            factors.append(g)
        runs[-1].append(i + 1)
    return [factor for run, factor in zip(runs, factors, strict=True) for _ in run]


def _rebuilt(layers: Sequence[Layer], widths: Sequence[int], groups: Sequence[int]) -> list[Layer]:
    """Return `layers` with new column widths and convolution groups; permutations follow the convolutions."""
    rebuilt: list[Layer] = []
    renamed: dict[int, int] = {}
    for layer, (before, after), g in zip(layers, itertools.pairwise(widths), groups, strict=True):
        if layer.kernel:
            g = before if layer.channel_wise else g
            renamed[layer.groups] = g
        else:
            g = renamed.get(layer.groups, math.gcd(layer.groups, before))
        rebuilt.append(Layer(before, after, g, layer.kernel))
    return rebuilt
