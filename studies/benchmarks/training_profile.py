"""Milliseconds of a training step by kind of call."""

from collections.abc import Callable

from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from igcv.machine.memory import give_back_freed_memory

PROFILED_STEPS = 3
RANGES = ("optimizer", "moving average")
KINDS = {  # kind of call: its operators, without "aten::"
    "matrix products": ("mm", "addmm", "addmm_", "bmm"),
    "batch norm": ("native_batch_norm", "_batch_norm_impl_index"),
    "batch norm, backward": ("native_batch_norm_backward",),
    "ReLU6": ("clamp", "clamp_", "hardtanh", "hardtanh_"),
    "ReLU6, backward": ("hardtanh_backward",),
    "additions": ("add", "add_", "sub", "sub_"),
    "copies and casts": ("copy_", "_to_copy", "clone", "contiguous"),
}
CONVOLUTIONS = {  # operator: index of the weight among its arguments
    "mkldnn_convolution": 1,
    "_slow_conv2d_forward": 1,
    "thnn_conv2d": 1,
    "convolution_backward": 2,
}


def profiled(step: Callable[[], None]) -> dict[str, float]:
    """Return the milliseconds per step by kind of CPU call; the time of a call excludes nested calls."""
    step()
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True, acc_events=True) as measured:
        for _ in range(PROFILED_STEPS):
            step()
    found: dict[str, float] = {}
    for event in measured.events() or ():
        kind = kind_of_call(event)
        found[kind] = found.get(kind, 0.0) + event.self_cpu_time_total / 1e3 / PROFILED_STEPS
    give_back_freed_memory()
    return found


def kind_of_call(event: FunctionEvent) -> str:
    """Return the kind of a call."""
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
    """Return the kind of a convolution with a weight of shape (O, C / groups, k, k); pointwise: a matrix product."""
    if weight[2:] == [1, 1]:
        return "matrix products"
    kind = "channel-wise convolutions" if weight[1] == 1 else "other convolutions"
    return f"{kind}, backward" if name.endswith("backward") else kind
