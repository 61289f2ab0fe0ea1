"""The fastest form of every block, by measuring them on this machine: the plan behind `fold(form="auto")`.

Each distinct block (same layers, same input) is built in each of its forms and run in the engine, in turns. It stands
between a pointwise convolution and a global pooling, so that its input comes in the engine's own layout, as it does
inside a network. Plans are kept in a file and measured once.
"""

import hashlib
import json
import math
import platform
import time
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from igcv.deploy.cache import cache_folder
from igcv.deploy.engines import Run, version_of
from igcv.deploy.engines import engine as find_engine
from igcv.deploy.fold import Foldable, Plan, build_network, fixed_plan, foldable_blocks, stream_groups
from igcv.deploy.forms import FORMS, LITERAL, Inverted, stream_layout
from igcv.deploy.layers import convolution
from igcv.errors import InputError
from igcv.models import Network
from igcv.weights import write_file

SHORTEST_S = 2e-3  # of one measurement
# Measurements of each, in turns, of which the shortest counts, as noise only ever adds: so many of those that have
# taken at most so many times as long as the fastest. What may win is measured most often.
ROUNDS = ((9, math.inf), (15, 1.15), (20, 1.05))


def choose_plan(
    model: Network, engine: str, input_size: int, batch_size: int = 1, threads: int | None = None
) -> Plan:
    """The fastest plan for `model`, measured, or from an earlier measurement of the same network on this machine.

    Args: as of `igcv.fold`.

    Raises:
        InputError: for an engine that is unknown or not installed.
    """
    threads = threads or torch.get_num_threads()
    setting = f"{input_size} {batch_size} {threads}"
    measure = partial(measure_plan, model, engine, input_size, batch_size, threads)
    return remembered(model, engine, setting, measure)


def remembered(model: Network, engine: str, setting: str, measure: Callable[[], Plan]) -> Plan:
    """The plan that an earlier call measured for the same network and setting on this machine, or else measures now."""
    find_engine(engine)
    machine = f"{version_of(engine)}, {torch.backends.cpu.get_cpu_capability()}, {processor()}"
    key = f"{engine} {setting} {model} {model.state_dict().keys()} {machine}"
    digest = hashlib.sha256(key.encode()).hexdigest()[:16]
    kept = read_plans()
    if digest in kept:
        return Plan(kept[digest]["forms"], kept[digest]["vector_width"])
    plan = measure()
    write_plans({**read_plans(), digest: {"engine": engine, **plan._asdict()}})
    return plan


def measure_plan(model: Network, engine: str, input_size: int, batch_size: int, threads: int) -> Plan:
    """The fastest plan, measured: one form throughout, or the fastest of every block put together.

    Blocks measured apart do not show what passing from one form to another costs, nor how much of the cache the rest of
    a network takes, so that the last word is had by whole networks.
    """
    before = torch.get_num_threads()
    blocks = foldable_blocks(model)
    measure = partial(fastest_runs, engine=find_engine(engine), batch_size=batch_size, threads=threads)
    shapes = input_shapes(model, input_size)
    plans = []
    for width in vector_widths(blocks, engine):
        plans.append(_plan_by_blocks(model, blocks, shapes, width, measure))
        plans += [plan for form in FORMS if (plan := fixed_plan(blocks, form, width)) not in plans]
    networks = [build_network(model, blocks, plan).float() for plan in plans]
    times = measure(networks, (model.in_chans, input_size, input_size))
    torch.set_num_threads(before)
    return plans[times.index(min(times))]


def vector_widths(blocks: Mapping[str, Foldable], engine: str) -> tuple[int, ...]:
    """What to fill groups up to: ONNX Runtime keeps channels in blocks as wide as the processor's registers."""
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
    """The fastest form of every distinct block at a vector width."""
    groups = stream_groups(blocks)
    fastest: dict[str, str] = {}
    chosen = {}
    for name, block in blocks.items():
        module = model.get_submodule(name)
        key = f"{module} {getattr(module, 'shortcut', None)} {shapes[name]}"
        if key not in fastest:
            layouts = tuple(stream_layout(channels, groups, width) for channels in block.widths)
            forms = [form for form in block.forms if form != LITERAL or not isinstance(block, Inverted)]
            probes = [Probe(block, form, layouts, width) for form in forms]
            times = measure(probes, (len(layouts[0]), *shapes[name]))
            fastest[key] = forms[times.index(min(times))]
        chosen[name] = fastest[key]
    return Plan(chosen, width)


class Probe(nn.Module):
    """A block in a form, between a pointwise convolution and a global pooling: (N, C, H, W) -> (N, O)."""

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
    probes: Sequence[nn.Module], shape: tuple[int, int, int], *, engine: Any, batch_size: int, threads: int
) -> list[float]:
    """The shortest time of each probe, in seconds, on an input of (C, H, W)."""
    images = torch.randn(batch_size, *shape, generator=torch.Generator().manual_seed(0))
    return shortest_times([engine.of(p.eval(), images[:1], threads).bind(images.numpy()) for p in probes])


def shortest_times(runs: Sequence[Run]) -> list[float]:
    """The shortest time of each run, in seconds, all measured in turns (see `ROUNDS`)."""
    for run in runs:
        run()
    times = [_time(run, 1) for run in runs]
    repeats = max(1, round(SHORTEST_S / min(times)))
    for count, margin in ROUNDS:
        left = [i for i, taken in enumerate(times) if taken <= margin * min(times)]
        for _ in range(count):
            for i in left:
                times[i] = min(times[i], _time(runs[i], repeats))
    return times


def _time(run: Run, repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def input_shapes(model: Network, input_size: int) -> dict[str, tuple[int, int]]:
    """Height and width of what each block receives, by its name."""
    shapes: dict[str, tuple[int, int]] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda block, inputs: shapes.update({name: tuple(inputs[0].shape[-2:])})

    copy = deepcopy(model).eval().to("meta")
    for name in foldable_blocks(model):
        copy.get_submodule(name).register_forward_pre_hook(note(name))
    with torch.no_grad():
        copy(torch.empty(1, model.in_chans, input_size, input_size, device="meta"))
    return shapes


def plans_file() -> Path:
    """Where measured plans are kept."""
    return cache_folder() / "plans.json"


def read_plans() -> dict[str, Any]:
    """The plans kept, by key; none where the file is missing or damaged."""
    try:
        kept = json.loads(plans_file().read_text())
    except (OSError, ValueError):
        return {}
    return kept if isinstance(kept, dict) else {}


def write_plans(plans: Mapping[str, Any]) -> None:
    """Keep plans; where the folder cannot be written, they are measured again next time."""
    try:
        plans_file().parent.mkdir(parents=True, exist_ok=True)
        write_file(plans_file(), json.dumps(plans, indent=1).encode())
    except (OSError, InputError):
        return


def processor() -> str:
    """The processor's name, so that a cache that is shared over machines serves each its own."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    models = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return models[0] if models else platform.processor()
