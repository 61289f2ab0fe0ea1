"""Images per second of training steps: IGCV3 in all its forms, and what people would use instead.

A step is forward, backward, SGD with momentum and the moving average of the weights, on random images. Every network
runs in a process of its own, so that its peak memory is its own. In each round each network makes a few steps while the
others wait, in a random order, so that all see the same machine. Numbers are medians over the rounds with the smallest
and the largest. Ratios are taken within each round first. "Before" is a step without the remedies of
igcv/models/gradients.py.

    python benchmarks/training.py                               # CPU, float32; some 20 minutes on two cores
    python benchmarks/training.py --precision bf16 --short      # CPU, bf16; four networks before and after, 5 minutes
    python benchmarks/training.py --device cuda                 # GPU, bf16, with and without torch.compile

pytorchcv takes part where it is installed (pip install pytorchcv).
"""

import argparse
import ctypes
import json
import multiprocessing
import platform
import random
import resource
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from multiprocessing.connection import Connection
from pathlib import Path
from statistics import median
from typing import Any

import torch
import torch.distributed as dist
from conditions import machine
from timm.utils import ModelEmaV3
from torch import nn
from torch.autograd.profiler_util import FunctionEvent
from torch.nn.parallel import DistributedDataParallel
from torch.profiler import ProfilerActivity, profile, record_function

import igcv
from igcv.analysis.cost import network_cost, output_shapes, weighted_layers
from igcv.machine.memory import keep_freed_memory
from igcv.machine.precision import autocast
from igcv.machine.timing import now
from igcv.models import Options, blocks, gradients
from igcv.models.igcv3 import DEEP
from igcv.models.inverted import HEAD, inverted_residual_network
from igcv.training.choose_forms import measure_forms

BATCH = {
    ("cpu", "float32"): {32: 64, 224: 16},
    ("cpu", "bf16"): {32: 128, 224: 32},
    ("cuda", "bf16"): {32: 1024, 224: 256},
    ("cuda", "float32"): {32: 512, 224: 128},
}
COMPARED = ("igcv3_d_p50", "igcv3_d_half", "igcv3_d_100", "mobilenetv2_100")  # before and after
PROFILE = -1  # asked of a network's process instead of a number of steps


@dataclass(frozen=True)
class Contestant:
    """One network, computed in one way."""

    network: str  # a key of NETWORKS
    size: int = 32  # pixels
    batch: int = 64  # images, over all processes
    form: str = ""  # of igcv's blocks; "" where there is none to choose
    channels_last: bool = True
    keeps_memory: bool = True  # glibc keeps freed blocks, as in igcv train
    compiled: bool = False
    processes: int = 1
    device: str = "cpu"
    precision: str = "float32"
    before: bool = False  # without the remedies of igcv/models/gradients.py

    @property
    def label(self) -> str:
        """Its name in tables."""
        parts = [self.network, self.form, "" if self.channels_last else "channels first"]
        parts += ["compiled" if self.compiled else "", "" if self.keeps_memory else "stock allocator"]
        parts += ["before" if self.before else ""]
        return ", ".join(part for part in parts if part)


def of_depth(factor: float) -> Callable[[int], nn.Module]:
    """IGCV3-D with `factor` times its blocks."""

    def build(size: int) -> nn.Module:
        rows = [row._replace(n=max(1, round(row.n * factor))) for row in DEEP]
        options = Options(num_classes=10, input_size=size)
        return inverted_residual_network(
            rows, lambda c: c, HEAD, groups=(2, 2), expand="linear", first_expand="linear", options=options
        )

    return build


def with_our_strides(model: nn.Module, layers: tuple[nn.Module, ...], size: int) -> nn.Module:
    """Return `model` with igcv's strides for 32 pixels: the first, second and last stride of 2 become 1."""
    for layer in layers if size == 32 else ():
        assert isinstance(layer, nn.Conv2d) and layer.stride == (2, 2)
        layer.stride = (1, 1)
    return model


def timm_mobilenetv2(size: int) -> nn.Module:
    """timm's MobileNetV2."""
    import timm

    model = timm.create_model("mobilenetv2_100", num_classes=classes(size))
    return with_our_strides(
        model, (model.conv_stem, model.blocks[1][0].conv_dw, model.blocks[5][0].conv_dw), size
    )


def torchvision_mobilenetv2(size: int) -> nn.Module:
    """torchvision's MobileNetV2."""
    from torchvision.models import mobilenet_v2

    model = mobilenet_v2(num_classes=classes(size))
    return with_our_strides(
        model, (model.features[0][0], *(model.features[i].conv[1][0] for i in (2, 14))), size
    )


def pytorchcv_igcv3(size: int) -> nn.Module:
    """pytorchcv's igcv3_w1, the same network as igcv3_d_100; at 224 pixels only."""
    from pytorchcv.model_provider import get_model

    return get_model("igcv3_w1", pretrained=False, num_classes=classes(size))


def from_catalog(name: str) -> Callable[[int], nn.Module]:
    """Return the builder of a network of igcv."""
    return lambda size: igcv.create_model(name, classes(size), input_size=size)


def classes(size: int) -> int:
    """CIFAR's or ImageNet's."""
    return 10 if size == 32 else 1000


NETWORKS: dict[str, Callable[[int], nn.Module]] = {
    **{name: from_catalog(name) for name in COMPARED},
    "igcv3_d_100 of double depth": of_depth(2),
    "timm mobilenetv2_100": timm_mobilenetv2,
    "torchvision mobilenet_v2": torchvision_mobilenetv2,
    "pytorchcv igcv3_w1": pytorchcv_igcv3,
}


def contestants(size: int, device: str, precision: str, short: bool = False) -> list[Contestant]:
    """Return who runs against whom at this image size; `short`: the compared networks only, before and after."""
    base = Contestant("igcv3_d_100", size, BATCH[device, precision][size], device=device, precision=precision)
    pairs = [
        replace(base, network=name, form="auto" if name.startswith("igcv3") else "", before=before)
        for name in COMPARED
        for before in ((True, False) if device == "cpu" else (False,))
    ]
    if short:
        return pairs
    others = ["timm mobilenetv2_100", "torchvision mobilenet_v2"]
    if size == 224 and find_spec("pytorchcv"):
        others.append("pytorchcv igcv3_w1")
    forms = ("literal", "dense", "branches", "sources", "partial_sums", "measure")
    found = pairs + [replace(base, form=form) for form in forms]
    found += [replace(base, network=name) for name in others]
    if device == "cuda":
        return found + [replace(c, compiled=True) for c in found if c.form != "measure"]
    for c in [c for c in found if not c.before]:
        if c.network in ("igcv3_d_p50", "igcv3_d_half"):
            continue
        if c.form in ("literal", "auto") or c.network in ("mobilenetv2_100", "pytorchcv igcv3_w1"):
            found.append(replace(c, keeps_memory=False))
    if "pytorchcv igcv3_w1" in others:
        first = replace(base, network="pytorchcv igcv3_w1", channels_last=False)
        found.append(replace(first, keeps_memory=False))
    return found


def growth(device: str, precision: str) -> dict[str, list[Contestant]]:
    """How cost grows with batch size, resolution, depth and processes."""
    base = Contestant("igcv3_d_100", form="auto", device=device, precision=precision)
    batches = (8, 16, 32, 64, 128) if device == "cpu" else (128, 256, 512, 1024, 2048, 4096)
    sizes = (32, 48, 64, 96) if device == "cpu" else (32, 64, 128, 224)
    depths = ("igcv3_d_half", "igcv3_d_100", "igcv3_d_100 of double depth")
    families = {
        "batch": [replace(base, batch=batch) for batch in batches],
        "size": [replace(base, size=size, batch=16 if device == "cpu" else 256) for size in sizes],
        "network": [replace(base, network=name, batch=32) for name in depths],
    }
    if device == "cpu":
        families["processes"] = [replace(base, processes=n) for n in (1, 2)]
    return families


def serve(connection: Connection, c: Contestant, rank: int, threads: int, store: str) -> None:
    """Run one network in this process.

    Asked for n steps, it answers with their seconds; asked for PROFILE, with milliseconds by kind of call; asked for 0,
    with its peak memory.
    """
    if c.before:
        without_remedies()
    torch.set_num_threads(threads)
    if c.keeps_memory and c.device == "cpu":
        keep_freed_memory()
    torch.manual_seed(0)
    layout = torch.channels_last if c.channels_last else torch.contiguous_format
    network: Any = NETWORKS[c.network](c.size).to(c.device, memory_format=layout).train()
    share = c.batch // c.processes
    images = torch.randn(share, 3, c.size, c.size, device=c.device).to(memory_format=layout)
    labels = torch.randint(classes(c.size), (share,), device=c.device)
    if c.form:
        igcv.set_form(network, measure_forms(network, images, c.precision) if c.form == "measure" else c.form)
    trained, average = network, ModelEmaV3(network, decay=0.999)
    if c.processes > 1:
        dist.init_process_group("gloo", f"file://{store}", rank=rank, world_size=c.processes)
        network = DistributedDataParallel(network, gradient_as_bucket_view=True, static_graph=True)
    if c.compiled:
        network = torch.compile(network)
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9, weight_decay=1e-4)

    def step() -> None:
        with autocast(torch.device(c.device), c.precision):
            loss = nn.functional.cross_entropy(network(images).float(), labels)
        loss.backward()
        with record_function("optimizer"):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        with record_function("moving average"):
            average.update(trained)

    def steps(count: int) -> float:
        step()  # after the wait, caches and memory are cold
        start = now(torch.device(c.device))
        for _ in range(count):
            step()
        taken = now(torch.device(c.device)) - start
        release_memory()
        return taken

    step()
    release_memory()
    connection.send(None)
    while count := connection.recv():
        connection.send(profiled(step) if count == PROFILE else steps(count))
    connection.send(peak_memory(c.device))


def release_memory() -> None:
    """Give freed memory back while the others run, so that all contestants fit beside each other."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)


def without_remedies() -> None:
    """Let this process take the library's slow paths, as before igcv/models/gradients.py."""
    blocks.match_gradient_format = lambda x: x  # type: ignore[attr-defined]
    gradients.FAST_BF16 = False


PROFILED_STEPS = 3
RANGES = ("optimizer", "moving average")
KINDS = {  # kind of call: the operators that do the work, without "aten::"
    "matrix products": ("mm", "addmm", "addmm_", "bmm"),
    "batch norm": ("native_batch_norm", "_batch_norm_impl_index"),
    "batch norm, backward": ("native_batch_norm_backward",),
    "ReLU6": ("clamp", "clamp_", "hardtanh", "hardtanh_"),
    "ReLU6, backward": ("hardtanh_backward",),
    "additions": ("add", "add_", "sub", "sub_"),
    "copies and casts": ("copy_", "_to_copy", "clone", "contiguous"),
}
CONVOLUTIONS = {  # operator: where its weight stands among the arguments
    "mkldnn_convolution": 1,
    "_slow_conv2d_forward": 1,
    "thnn_conv2d": 1,
    "convolution_backward": 2,
}


def profiled(step: Callable[[], None]) -> dict[str, float]:
    """Return the milliseconds of a step by kind of call on the CPU, each without the calls inside it."""
    step()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as measured:
        for _ in range(PROFILED_STEPS):
            step()
    found: dict[str, float] = {}
    for event in measured.events() or ():
        kind = kind_of_call(event)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1e3 / PROFILED_STEPS
    release_memory()
    return found


def kind_of_call(event: FunctionEvent) -> str:
    """Return to which part of a step a call belongs."""
    around: FunctionEvent | None = event
    while around is not None:
        if around.name in RANGES:
            return around.name
        around = around.cpu_parent
    name = event.name.removeprefix("aten::")
    if name in CONVOLUTIONS:
        return kind_of_convolution(event.input_shapes[CONVOLUTIONS[name]], name)
    return next((kind for kind, names in KINDS.items() if name in names), "other")


def kind_of_convolution(weight: list[int], name: str) -> str:
    """Return the kind for a weight of (O, C / groups, k, k); a pointwise one is a matrix product."""
    if weight[2:] == [1, 1]:
        return "matrix products"
    kind = "channel-wise convolutions" if weight[1] == 1 else "other convolutions"
    return f"{kind}, backward" if name.endswith("backward") else kind


def peak_memory(device: str) -> float:
    """The most memory that this process has held, in MiB: of the GPU, or of the machine with all libraries."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    unit = 1 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 2**20


class Team:
    """The processes of one contestant."""

    def __init__(self, c: Contestant, threads: int) -> None:
        self.contestant, self.steps = c, 2 if c.device == "cpu" else 10
        context = multiprocessing.get_context("spawn")
        self.store = tempfile.TemporaryDirectory()
        self.connections, self.members = [], []
        for rank in range(c.processes):
            here, there = context.Pipe()
            arguments = there, c, rank, max(1, threads // c.processes), f"{self.store.name}/store"
            self.members.append(context.Process(target=serve, args=arguments, daemon=True))
            self.members[-1].start()
            self.connections.append(here)
        for connection in self.connections:
            connection.recv()

    def rate(self) -> float:
        """Images per second over a few steps."""
        return self.contestant.batch * self.steps / max(self.ask(self.steps))

    def profile(self) -> dict[str, dict[str, float]]:
        """Milliseconds by kind of call, of the compared networks on a CPU."""
        c = self.contestant
        wanted = c.network in COMPARED and c.keeps_memory and c.device == "cpu" and c.processes == 1
        return {"profile": self.ask(PROFILE)[0]} if wanted else {}

    def ask(self, count: int) -> list[Any]:
        """Send `count` to all members; their answers."""
        for connection in self.connections:
            connection.send(count)
        return [connection.recv() for connection in self.connections]

    def leave(self) -> float:
        """End the processes; their peak memory in MiB, added up."""
        memory = sum(self.ask(0))
        for member in self.members:
            member.join()
        self.store.cleanup()
        return memory


def measure(competing: list[Contestant], rounds: int, threads: int) -> list[dict[str, Any]]:
    """Measure all in random order within each round: a row of numbers for each."""
    teams = []
    for c in competing:
        print(f"  starting {c.label}, {c.size} px, batch {c.batch}", file=sys.stderr)
        teams.append(Team(c, threads))
    rates: list[list[float]] = [[] for _ in teams]
    order = random.Random(0)
    for number in range(rounds):
        print(f"  round {number + 1} of {rounds}", file=sys.stderr)
        for team, measured in order.sample([*zip(teams, rates, strict=True)], len(teams)):
            measured.append(team.rate())
    return [
        {
            **asdict(team.contestant),
            "label": team.contestant.label,
            **team.profile(),
            "rates": [round(rate, 2) for rate in measured],
            "memory_mib": round(team.leave()),
        }
        for team, measured in zip(teams, rates, strict=True)
    ]


def ceilings(device: str, precision: str) -> dict[str, float]:
    """What the machine can do: copying 256 MiB to and fro in GB/s, and multiplying matrices in GFLOP/s."""
    a, b = (torch.ones(2**26, device=device) for _ in range(2))
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    side = 8192 if device == "cuda" else 1024
    x = torch.randn(side, side, device=device, dtype=dtype)
    copy, product = seconds(lambda: b.copy_(a), device), seconds(lambda: x @ x, device)
    return {
        "copy_gb_per_s": round(2 * a.nbytes / copy / 1e9, 1),
        "matmul_gflop_per_s": round(2 * side**3 / product / 1e9, 1),
    }


def seconds(work: Callable[[], object], device: str) -> float:
    """The median seconds of ten calls."""
    times = []
    for _ in range(12):
        start = now(torch.device(device))
        work()
        times.append(now(torch.device(device)) - start)
    return median(times[2:])


def load(name: str, size: int) -> dict[str, float]:
    """What an image of a training step needs at least: operations, and bytes of convolution outputs passed by.

    Three passes of multiply-adds (forward, two backward); every output of a convolution is written and read in the
    forward pass, read again in the backward pass, and so is its gradient written and read: five times four bytes.
    """
    network, images = NETWORKS[name](size), torch.zeros(1, 3, size, size)
    convs = {key: layer for key, layer in weighted_layers(network).items() if isinstance(layer, nn.Conv2d)}
    outputs = sum(shape.numel() for _, shape in output_shapes(network, images, convs))
    return {"gflop": 6 * network_cost(network, images).multiply_adds / 1e9, "mb": 5 * 4 * outputs / 1e6}


def spread(values: list[float], digits: int = 1) -> str:
    """Median (smallest to largest)."""
    return f"{median(values):.{digits}f} ({min(values):.{digits}f} to {max(values):.{digits}f})"


def ratio(rows: list[dict[str, Any]], ours: str, theirs: str) -> str | None:
    """How many times as fast one label is as another, within each round."""
    rates = {row["label"]: row["rates"] for row in rows}
    if not {ours, theirs} <= rates.keys():
        return None
    return spread([a / b for a, b in zip(rates[ours], rates[theirs], strict=True)], 2)


def main_table(rows: list[dict[str, Any]], reference: str) -> Iterator[str]:
    """All contestants of one image size."""
    yield f"| network | images/s | times {reference} | peak memory, MiB |"
    yield "|---|---|---|---|"
    for row in rows:
        times = ratio(rows, row["label"], reference)
        yield f"| {row['label']} | {spread(row['rates'])} | {times} | {row['memory_mib']:,} |"


def before_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """The compared networks with and without the remedies."""
    rates = {row["label"]: row["rates"] for row in rows}
    reference = "mobilenetv2_100"
    yield f"| network | images/s before | images/s after | times as fast | times {reference}, both after |"
    yield "|---|---|---|---|---|"
    for label, measured in rates.items():
        if f"{label}, before" in rates:
            before, gain = rates[f"{label}, before"], ratio(rows, label, f"{label}, before")
            times = ratio(rows, label, reference)
            yield f"| {label} | {spread(before)} | {spread(measured)} | {gain} | {times} |"


def profile_table(rows: list[dict[str, Any]]) -> Iterator[str]:
    """Milliseconds of a step by kind of call."""
    labels = [row["label"] for row in rows]
    kinds = {
        kind: sum(row["profile"].get(kind, 0.0) for row in rows) for row in rows for kind in row["profile"]
    }
    yield "Milliseconds of a step, measured with torch.profiler, which adds some to each call:"
    yield ""
    yield f"| kind of call | {' | '.join(labels)} |"
    yield f"|---|{'---|' * len(labels)}"
    for kind in sorted(kinds, key=lambda kind: -kinds[kind]):
        cells = [f"{row['profile'].get(kind, 0.0):.0f}" for row in rows]
        yield f"| {kind} | {' | '.join(cells)} |"
    sums = [f"{sum(row['profile'].values()):.0f}" for row in rows]
    yield f"| all | {' | '.join(sums)} |"


def growth_table(rows: list[dict[str, Any]], what: str) -> Iterator[str]:
    """One family of contestants."""
    if what == "size":
        yield (
            "The first, second and last stride of 2 are 1 up to 32 pixels, the first and last up to 64, none beyond: "
            "work does not grow smoothly."
        )
        yield ""
    yield f"| {what} | images/s | ms an image | peak memory, MiB |"
    yield "|---|---|---|---|"
    for row in rows:
        rate = median(row["rates"])
        yield f"| {row[what]} | {spread(row['rates'])} | {1e3 / rate:.2f} | {row['memory_mib']:,} |"


def ceiling_table(result: dict[str, Any]) -> Iterator[str]:
    """What a step needs at least, and how long that takes at the rates of this machine."""
    limits, loads = result["ceilings"], result["loads"]
    yield (
        f"Measured in the same run: {limits['copy_gb_per_s']} GB/s copied, {limits['matmul_gflop_per_s']} GFLOP/s "
        "multiplied. An image of a training step needs at least this many operations, and passes this many bytes of "
        "convolution outputs and their gradients:"
    )
    yield ""
    yield "| network | pixels | GFLOP | ms at the rate of products | MB | ms at the rate of copies |"
    yield "|---|---|---|---|---|---|"
    for row in loads:
        arithmetic = 1e3 * row["gflop"] / limits["matmul_gflop_per_s"]
        traffic = row["mb"] / limits["copy_gb_per_s"]
        yield (
            f"| {row['network']} | {row['size']} | {row['gflop']:.2f} | {arithmetic:.2f} | {row['mb']:.0f} "
            f"| {traffic:.2f} |"
        )
    yield ""
    for ours, theirs in zip(loads[::2], loads[1::2], strict=True):
        yield (
            f"At {ours['size']} pixels {ours['network']} needs {ours['gflop'] / theirs['gflop']:.2f} times the "
            f"operations of {theirs['network']}, but {ours['mb'] / theirs['mb']:.2f} times the bytes: twice the "
            "blocks, each with expanded activations of its own. Batch norms and permutations pass over them again; "
            "the forms leave out the permutation and one batch norm of two, which MobileNetV2 has to keep."
        )


BF16_TARGETS = (  # on a CPU: size, ours, theirs, how many times
    (32, "igcv3_d_p50, auto", "mobilenetv2_100", 1.3),
    (32, "igcv3_d_half, auto", "mobilenetv2_100", 1.1),
    (32, "igcv3_d_100, auto", "mobilenetv2_100", 0.75),
)
TARGETS = (  # size, ours, theirs, how many times
    (224, "igcv3_d_100, auto", "pytorchcv igcv3_w1, stock allocator", 2.2),
    (224, "igcv3_d_100, auto", "pytorchcv igcv3_w1, channels first, stock allocator", 2.2),
    (224, "igcv3_d_100, auto", "pytorchcv igcv3_w1", 2.2),
    (32, "igcv3_d_100, auto", "igcv3_d_100, literal, stock allocator", 2.5),
    (32, "igcv3_d_100, auto", "igcv3_d_100, literal", 2.5),
    (32, "igcv3_d_100, auto", "mobilenetv2_100", 0.8),
    (224, "igcv3_d_100, auto", "mobilenetv2_100", 0.8),
    (32, "igcv3_d_100, auto, stock allocator", "mobilenetv2_100, stock allocator", 0.8),
    (224, "igcv3_d_100, auto, compiled", "pytorchcv igcv3_w1, compiled", 2.0),
    (224, "igcv3_d_100, auto, compiled", "mobilenetv2_100, compiled", 0.8),
    (32, "igcv3_d_100, auto, compiled", "mobilenetv2_100, compiled", 0.8),
)


def page(result: dict[str, Any]) -> str:
    """The results as a page."""
    lines = [
        "# Training steps: images per second",
        "",
        (__doc__ or "").split("\n\n")[1].replace("\n", " "),
        "",
    ]
    lines += [", ".join(f"{key} {value}" for key, value in result["machine"].items()), ""]
    on_bf16 = result["machine"].get("precision") == "bf16" and "gpu" not in result["machine"]
    lines += ["## Targets", "", "| pixels | ours | compared with | times as fast | wanted |"]
    lines += ["|---|---|---|---|---|"]
    for size, ours, theirs, wanted in BF16_TARGETS if on_bf16 else TARGETS:
        found = ratio(result["sizes"].get(str(size), []), ours, theirs)
        if found:
            lines.append(f"| {size} | {ours} | {theirs} | {found} | {wanted} |")
    for size, rows in result["sizes"].items():
        lines += ["", f"## {size} x {size} pixels, batch {rows[0]['batch']}", ""]
        lines += main_table(rows, "mobilenetv2_100")
        if any(row["before"] for row in rows):
            lines += ["", "### Before and after", "", *before_table(rows)]
        if profiles := [row for row in rows if "profile" in row and not row["before"]]:
            lines += ["", "### By kind of call", "", *profile_table(profiles)]
    lines += ["", "## Against what the machine can do", "", *ceiling_table(result)]
    for what, rows in result["growth"].items():
        lines += ["", f"## Growth with {what}", "", *growth_table(rows, what)]
    return "\n".join(lines) + "\n"


def plot(result: dict[str, Any], file: Path) -> None:
    """Bars of images per second, one panel for each image size."""
    from matplotlib.figure import Figure

    sizes = result["sizes"]
    figure = Figure(figsize=(9, 0.9 + 0.27 * sum(map(len, sizes.values()))), layout="constrained")
    panels = figure.subplots(len(sizes), squeeze=False, height_ratios=[len(rows) for rows in sizes.values()])
    for axes, (size, rows) in zip(panels[:, 0], sizes.items(), strict=True):
        rows = sorted(rows, key=lambda row: median(row["rates"]))
        middles = [median(row["rates"]) for row in rows]
        below = [m - min(row["rates"]) for m, row in zip(middles, rows, strict=True)]
        above = [max(row["rates"]) - m for m, row in zip(middles, rows, strict=True)]
        colours = ["tab:blue" if row["form"] else "tab:gray" for row in rows]
        labels = [row["label"] for row in rows]
        axes.barh(labels, middles, xerr=[below, above], color=colours, ecolor="black", capsize=2)
        axes.set_title(f"{size} x {size} pixels, batch {rows[0]['batch']}", loc="left", fontsize=10)
        axes.set_xlabel("images per second of training (median, smallest and largest)")
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(file, dpi=120)


def main() -> None:
    """Measure, and write a page, a plot and the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), help="default: float32, on a GPU bf16")
    parser.add_argument("--short", action="store_true", help="four networks only, before and after")
    parser.add_argument("--rounds", type=int, default=7, help="how often each one is measured (default: 7)")
    parser.add_argument("--sizes", type=int, nargs="+", choices=(32, 224), default=[32, 224], help="pixels")
    parser.add_argument("--no-growth", action="store_true", help="leave out how cost grows")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)"
    )
    parser.add_argument("--out", type=Path, help="results without suffix (default: results/training_DEVICE)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU; leave out --device cuda")
    torch.set_num_threads(options.threads)
    usual = "bf16" if options.device == "cuda" else "float32"
    precision = options.precision or usual
    name = f"training_{options.device}" + ("" if precision == usual else f"_{precision}")
    out = options.out or Path(__file__).parent / "results" / name
    loads = [(name, size) for size in options.sizes for name in ("igcv3_d_100", "mobilenetv2_100")]
    result: dict[str, Any] = {
        "machine": {**machine(options.device), "precision": precision},
        "ceilings": ceilings(options.device, precision),
        "loads": [{"network": name, "size": size, **load(name, size)} for name, size in loads],
        "sizes": {},
        "growth": {},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        competing = contestants(size, options.device, precision, options.short)
        result["sizes"][str(size)] = measure(competing, options.rounds, options.threads)
        write(result, out)
    without_growth = options.no_growth or options.short
    for what, family in growth(options.device, precision).items() if not without_growth else ():
        result["growth"][what] = measure(family, options.rounds, options.threads)
        write(result, out)
    print(page(result))


def write(result: dict[str, Any], out: Path) -> None:
    """What has been measured so far."""
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    out.with_suffix(".md").write_text(page(result) + f"\n![images per second]({out.name}.png)\n")
    plot(result, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
