"""Measured choice of the fastest form of each block on this machine, for `fold(form="auto")`.

The measurement builds each distinct block (same layers, same input) in each of its forms and runs the forms
alternately in the engine. A pointwise convolution before the block and a global pooling after the block keep its input
in the layout of the engine, as in a whole network. A file in the cache keeps the measured plans.
"""

import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from igcv.deploy.folding.forms import FORMS, LITERAL
from igcv.deploy.folding.inverted import Inverted, stream_layout
from igcv.deploy.folding.layers import convolution
from igcv.deploy.folding.network import FoldedNetwork
from igcv.deploy.folding.plan import (
    Foldable,
    Plan,
    fixed_plan,
    foldable_blocks,
    folded_network,
    stream_groups,
)
from igcv.deploy.plans import remembered
from igcv.deploy.writers.graph import FormError
from igcv.deploy.writers.session import session_of
from igcv.engines.opened import open_session, size_of
from igcv.engines.table import ENGINES, check_timed
from igcv.machine.threads import using_threads
from igcv.machine.timing import once_for_each, shortest_times
from igcv.models import Network, block_kind, set_form

INT8_FORMS = ("dense", "group_dense", "group_group")  # the other forms sum paths, or keep the permutation
AS_FAST = 1.1  # a form this many times as slow as the fastest still counts as fast


def choose_plan(
    model: Network, engine: str, input_size: int, batch_size: int = 1, threads: int | None = None
) -> Plan:
    """Return the fastest plan for `model`, from the cache if an earlier call measured the network on this machine.

    `igcv.fold` describes the arguments.

    Raises:
        InputError: if the engine is unknown, not installed or not measured.
    """
    check_timed(engine)
    threads = threads or torch.get_num_threads()
    setting = f"{input_size} {batch_size} {threads}"
    measure = partial(measure_plan, model, engine, input_size, batch_size, threads)
    return remembered(model, engine, setting, measure)


def measure_plan(model: Network, engine: str, input_size: int, batch_size: int, threads: int) -> Plan:
    """Measure whole networks and return the fastest plan.

    The candidates are one form for all blocks, for each form, and the combination of the fastest forms of the single
    blocks. Measurements of single blocks ignore the cost of changing between forms, and the cache that the other
    blocks use.
    """
    blocks = foldable_blocks(model)
    measure = partial(fastest_runs, engine=engine, batch_size=batch_size, threads=threads)
    shapes = input_shapes(model, input_size)
    plans = []
    for width in vector_widths(blocks, engine):
        plans.append(_plan_by_blocks(model, blocks, shapes, width, measure))
        plans += [plan for form in FORMS if (plan := fixed_plan(blocks, form, width)) not in plans]
    networks = [folded_network(model, blocks, plan).float() for plan in plans]
    times = measure(networks, (model.in_chans, input_size, input_size))
    return plans[times.index(min(times))]


def vector_widths(blocks: Mapping[str, Foldable], engine: str) -> tuple[int, ...]:
    """Return the widths to which groups of channels may be padded.

    ONNX Runtime stores channels in blocks as wide as the vector registers of the processor.
    """
    if engine != "onnx" or stream_groups(blocks) == 1:
        return (1,)
    return (1, 16 if "AVX512" in torch.backends.cpu.get_cpu_capability() else 8)


def _plan_by_blocks(
    model: Network,
    blocks: Mapping[str, Foldable],
    shapes: Mapping[str, tuple[int, int]],
    width: int,
    measure: Callable[..., list[float]],
) -> Plan:
    """Return the plan with the fastest form of each distinct block at a vector width."""
    groups = stream_groups(blocks)

    def fastest(name: str) -> str:
        block = blocks[name]
        layouts = tuple(stream_layout(channels, groups, width) for channels in block.widths)
        forms = [form for form in block.forms if form != LITERAL or not isinstance(block, Inverted)]
        probes = [Probe(block, form, layouts, width) for form in forms]
        times = measure(probes, (len(layouts[0]), *shapes[name]))
        return forms[times.index(min(times))]

    kinds = {name: (block_kind(model.get_submodule(name)), shapes[name]) for name in blocks}
    return Plan(once_for_each(kinds, fastest), width)


class Probe(nn.Module):
    """Block in a form, between a pointwise convolution and a global pooling: (N, C, H, W) -> (N, O)."""

    def __init__(self, block: Foldable, form: str, layouts: Any, vector_width: int) -> None:
        super().__init__()
        built: Any = block.build(form, layouts, vector_width)
        parts = built.stream_parts
        channels = len(layouts[0])
        weight = torch.randn(channels, channels, 1, 1, generator=torch.Generator().manual_seed(0)) / channels
        self.entries = nn.ModuleList(convolution(part, None) for part in weight.chunk(parts))
        self.block = built.float()
        self.pool = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())

    def forward(self, x: Tensor) -> Tensor:
        stream = self.block(tuple(entry(x) for entry in self.entries))
        return torch.cat([self.pool(part) for part in stream], 1)


def fastest_runs(
    probes: Sequence[nn.Module], shape: tuple[int, int, int], *, engine: str, batch_size: int, threads: int
) -> list[float]:
    """Return the shortest time of each probe, in seconds, on inputs of shape (C, H, W); infinity if it cannot run."""
    images = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0))
    runs: dict[int, Callable[[], np.ndarray]] = {}
    for i, probe in enumerate(probes):
        with suppress(FormError):
            runs[i] = session_of(probe.eval(), images[:1], engine, threads).bind(images.numpy())
    with using_threads(threads):
        times = dict(zip(runs, shortest_times([*runs.values()]), strict=True)) if runs else {}
    return [times.get(i, math.inf) for i in range(len(probes))]


def input_shapes(model: Network, input_size: int) -> dict[str, tuple[int, int]]:
    """Return the input height and width of each block, by block name."""
    shapes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda block, inputs: shapes.update({name: tuple(inputs[0].shape[-2:])})

    copy = deepcopy(model).eval().to("meta")
    set_form(copy, "literal")  # other forms compute weights; only shapes are needed here
    for name in foldable_blocks(model):
        copy.get_submodule(name).register_forward_pre_hook(note(name))
    with torch.no_grad():
        copy(torch.empty(1, model.in_chans, input_size, input_size, device="meta"))
    return shapes


def choose_int8_plan(
    model: Network,
    write: Callable[[FoldedNetwork, Path], None],
    engine: str,
    images: np.ndarray,
    threads: int | None = None,
) -> Plan:
    """Return the plan for an int8 file, from the cache if an earlier call measured the network on this machine.

    Args:
        model: the trained network.
        write: function that quantizes a folded network and writes it to a file.
        engine: "onnx" or "openvino".
        images: one batch of images, in the input format of the file.
        threads: number of threads of the engine; None: PyTorch's number.

    Raises:
        InputError: if the engine is unknown or not installed.
    """
    threads = threads or torch.get_num_threads()
    setting = f"int8 {images.dtype} {images.shape} {threads}"
    return remembered(
        model, engine, setting, partial(measure_int8_plan, model, write, engine, images, threads)
    )


def measure_int8_plan(
    model: Network,
    write: Callable[[FoldedNetwork, Path], None],
    engine: str,
    images: np.ndarray,
    threads: int,
) -> Plan:
    """Measure an int8 file of each form and return the plan of the smallest file among the fast ones."""
    blocks = foldable_blocks(model)
    plans: list[Plan] = []
    for form in INT8_FORMS:  # in MobileNetV2, all forms give the same plan
        plan = fixed_plan(blocks, form, 1)
        plans += [plan] if plan not in plans else []
    if len(plans) == 1:
        return plans[0]
    with tempfile.TemporaryDirectory() as folder:
        files = [Path(folder) / f"{i}{ENGINES[engine].suffix}" for i in range(len(plans))]
        for plan, file in zip(plans, files, strict=True):
            write(folded_network(model, blocks, plan), file)
        times = shortest_times([open_session(file, engine, threads).bind(images) for file in files])
        sizes = [size_of(file) for file in files]
    enough = [i for i, taken in enumerate(times) if taken <= AS_FAST * min(times)]
    return plans[min(enough, key=sizes.__getitem__)]
