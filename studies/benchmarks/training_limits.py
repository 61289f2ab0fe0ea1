"""Lower bounds of a training step, and the throughput of the host."""

from collections.abc import Callable
from statistics import median

import torch
from torch import nn

from igcv.analysis.cost import network_cost, output_shapes, weighted_layers
from igcv.machine.timing import now
from studies.benchmarks.networks import NETWORKS


def ceilings(device: str, precision: str) -> dict[str, float]:
    """Return the copy bandwidth for 256 MiB in GB/s and the matrix-multiply throughput in GFLOP/s."""
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
    """Return the median seconds of ten calls, after two warm-up calls."""
    times = []
    for _ in range(12):
        start = now(torch.device(device))
        work()
        times.append(now(torch.device(device)) - start)
    return median(times[2:])


def image_load(name: str, size: int) -> dict[str, float]:
    """Return lower bounds for one image of a training step: operations, and memory traffic of convolution outputs.

    The operations are three passes of multiply-adds (forward, two backward). Every output of a convolution is written
    and read in the forward pass and read again in the backward pass. Its gradient is written and read once. The traffic
    is five times four bytes per output.
    """
    network, images = NETWORKS[name](size), torch.zeros(1, 3, size, size)
    convs = {key: layer for key, layer in weighted_layers(network).items() if isinstance(layer, nn.Conv2d)}
    outputs = sum(shape.numel() for _, shape in output_shapes(network, images, convs))
    return {"gflop": 6 * network_cost(network, images).multiply_adds / 1e9, "mb": 5 * 4 * outputs / 1e6}
