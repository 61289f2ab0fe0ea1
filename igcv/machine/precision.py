"""Precision of the forward pass: autocast, and the measured choice of precision = "auto"."""

import platform
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from statistics import median
from typing import NamedTuple

import torch
from torch import Tensor, nn

from igcv.machine.timing import left_as_it_was, now

AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}
ROUNDS = 5  # timed steps per precision; the median decides


class Chosen(NamedTuple):
    """Precision, with the reason for messages."""

    precision: str
    reason: str


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """Return the context for a forward pass in the precision of the recipe."""
    dtype = AUTOCAST[precision]
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


def choose_precision(network: nn.Module, images: Tensor) -> Chosen:
    """Return bf16 if the device supports bf16 natively and the network trains faster in bf16, otherwise float32.

    The network is not changed, including its running statistics.

    Args:
        network: the network, on the device of `images`.
        images: a training batch (N, 3, S, S).
    """
    if not has_native_bf16(images.device):
        return Chosen("float32", "auto: no native bf16 on this device")
    times = step_times(network, images)
    faster = times["float32"] / times["bf16"]
    return Chosen(
        "bf16" if faster > 1 else "float32",
        f"auto: a step in bf16 is {faster:.2f} times as fast as in float32",
    )


def step_times(network: nn.Module, images: Tensor) -> dict[str, float]:
    """Return the median time of a forward and backward pass in float32 and bf16, in seconds, measured alternately."""
    times: dict[str, list[float]] = {"float32": [], "bf16": []}
    with left_as_it_was(network):
        network.train()
        for _ in range(1 + ROUNDS):
            for precision, measured in times.items():
                measured.append(_step_s(network, images, precision))
    # The first step is a warm-up.
    return {precision: median(measured[1:]) for precision, measured in times.items()}


def _step_s(network: nn.Module, images: Tensor, precision: str) -> float:
    start = now(images.device)
    with autocast(images.device, precision):
        logits = network(images)
    logits.float().square().mean().backward()
    return now(images.device) - start


def has_native_bf16(device: torch.device) -> bool:
    """Return whether the device multiplies bf16 in hardware, without conversion to float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type != "cpu":
        return False
    if platform.machine().lower() in ("arm64", "aarch64"):
        return _cpu_flag("bf16")
    # These tests of torch are private. The CPU flags of Linux replace them in versions of torch without them.
    tests = [getattr(torch.cpu, f"_is_{name}_supported", None) for name in ("avx512_bf16", "amx_tile")]
    return any(test() for test in tests if test) or _cpu_flag("avx512_bf16") or _cpu_flag("amx_bf16")


def _cpu_flag(name: str) -> bool:
    """Return whether Linux lists `name` as a feature of the processor."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return False
    return any(
        name in line.partition(":")[2].split() for line in lines if line.startswith(("flags", "Features"))
    )
