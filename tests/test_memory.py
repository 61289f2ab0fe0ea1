"""Tests of memory: the peak in the log, the out-of-memory error, and the estimated largest batch."""

import json
import re
import sys
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from igcv.errors import InputError
from igcv.machine.memory import Allocations, is_out_of_memory, peak_mib, without_onednn
from igcv.machine.processes import Process
from igcv.training import epochs, load_recipe, read_metrics
from igcv.training.job import Job, resolve
from igcv.training.memory import OVERHEAD, StepMemory, explained, largest_batch, remedies, step_memory
from igcv.training.phases import train_in
from igcv.training.start import start_network
from studies.soak.lives import ended
from tests.conftest import Igcv

CPU = torch.device("cpu")
SMALL = ["model=igcv3_w_010", "input_size=16", "batch_size=8", "epochs=1", "workers=0"]


def job_of(*settings: str) -> Job:
    return resolve(load_recipe(None, ["data=digits", *SMALL, *settings]), Process(CPU))


def limit(mib: int) -> None:
    """Limit an epoch and its error message to some MiB more than the process holds before."""
    import resource

    import_module("torch._dynamo")  # imported before the limit applies
    trained = epochs.train_epoch

    def limited(*given: Any) -> Any:
        size = int(Path("/proc/self/status").read_text().split("VmSize:")[1].split()[0]) * 2**10
        resource.setrlimit(resource.RLIMIT_AS, (size + mib * 2**20, resource.RLIM_INFINITY))
        done = trained(*given)
        resource.setrlimit(resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        return done

    epochs.train_epoch = limited


def limited(out: Path, mib: int, *settings: str) -> tuple[int, str]:
    """Train on digits in a process with a memory limit for the epoch, in MiB; return exit status and output."""
    command = [
        "train",
        "data=digits",
        "model=igcv3_d_025",
        "input_size=32",
        "epochs=1",
        "workers=0",
        "precision=float32",
        "ema_decay=0",
        *settings,
    ]
    log = out.with_suffix(".log")
    [code] = ended([*command, "--device", "cpu", "--quiet", "--out", str(out)], 1, log, partial(limit, mib))
    return code, log.read_text()


@pytest.mark.skipif(sys.platform != "linux", reason="limits the addresses of a process")
def test_a_step_that_needs_too_much_says_what_to_change(tmp_path: Path) -> None:
    """The settings that the error names are sufficient."""
    code, printed = limited(tmp_path / "large", 600, "batch_size=512")
    assert code == 2, printed
    assert printed.count("\n") == 1
    said = re.fullmatch(
        r"igcv: out of memory: a step on 512 images of 32 x 32 pixels \(batch_size=512, accumulation=1\); the process "
        r"used [\d,]+ MiB before the failure\. Estimate: the step needs ([\d,]+) MiB, ([\d,]+) MiB are free, (\d+) "
        r"images fit\. Give batch_size=(\d+) or accumulation=(\d+) \(the same batch in micro-batches\) or a smaller "
        r"input_size\n",
        printed,
    )
    assert said, printed
    need, free, fits, batch_size, accumulation = (int(number.replace(",", "")) for number in said.groups())
    assert 0 < free < need
    assert batch_size <= fits < 512 <= accumulation * fits
    for name, setting in (("batch", f"batch_size={batch_size}"), ("parts", f"accumulation={accumulation}")):
        code, printed = limited(tmp_path / name, 600, *["batch_size=512"] * (name == "parts"), setting)
        assert code == 0, printed


@pytest.mark.parametrize(
    "error",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
        RuntimeError(
            "[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried to"
        ),
        RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_errors_that_tell_of_memory(error: Exception) -> None:
    job = job_of()
    with (
        pytest.raises(
            InputError, match=r"out of memory: a step on 8 images of 16 x 16 pixels \(batch_size=8, "
        ),
        explained(job, start_network(job), 8),
    ):
        raise error


def test_other_errors_stay() -> None:
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    job = job_of()
    with pytest.raises(RuntimeError, match="cannot be multiplied"), explained(job, nn.Identity(), 8):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_without_memory_for_an_estimate(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "igcv.training.memory.step_memory", lambda *given: (_ for _ in ()).throw(MemoryError())
    )
    job = job_of()
    with (
        pytest.raises(InputError, match="Give a smaller batch_size, a larger accumulation or"),
        explained(job, start_network(job), 8),
    ):
        raise MemoryError


def test_bytes_of_tensors_by_hand() -> None:
    """Of three tensors of 4,000 bytes, at most two exist at once; a view allocates nothing."""
    x = torch.zeros(1000)
    with Allocations() as allocations:
        first = x + 1
        second = first.view(10, 100) + 1
        del first
        third = second + 1
        del second, third
    assert allocations.peak == 8000


def test_a_linear_layer_by_hand() -> None:
    """The memory of a step grows with each image: input and output of ReLU, and the gradients."""

    class Wide(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = nn.Conv2d(3, 100, 1, bias=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.layer(x).relu().mean((2, 3))

    found = step_memory(Wide(), 16, job_of())
    map_bytes = 4 * 100 * 16 * 16
    assert 2 * map_bytes <= found.per_image / OVERHEAD <= 4 * map_bytes
    assert StepMemory(100, 10).images_in(255) == 15 and StepMemory(100, 10).images_in(50) == 0


def test_the_estimate_is_the_same_without_onednn() -> None:
    job = job_of()
    network, enabled = start_network(job), torch.backends.mkldnn.enabled
    found = step_memory(network, 16, job)
    with without_onednn():
        assert not torch.backends.mkldnn.enabled
        assert step_memory(network, 16, job).per_image == pytest.approx(found.per_image, rel=0.02)
    assert torch.backends.mkldnn.enabled == enabled


def test_estimating_leaves_the_network_as_it_was() -> None:
    job = job_of()
    network = start_network(job).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    assert largest_batch(job, network) > 8
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training and all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    "settings, fits, found",
    [
        (("batch_size=96",), 50, ["batch_size=48", "accumulation=2 (the same batch in micro-batches)"]),
        (
            ("batch_size=90", "accumulation=3"),
            12,
            ["batch_size=24", "accumulation=9 (the same batch in micro-batches)"],
        ),
        (("batch_size=8",), 3, ["batch_size=3", "accumulation=4 (the same batch in micro-batches)"]),
        (("batch_size=8",), 1, []),
    ],
)
def test_what_to_change(settings: tuple[str, ...], fits: int, found: list[str]) -> None:
    assert remedies(job_of(*settings), fits) == [*found, "a smaller input_size"]


def test_the_peak_stands_in_the_log(digit_folder: Path, tmp_path: Path) -> None:
    recipe = load_recipe(None, [*SMALL, f"data={digit_folder}", "epochs=2"])
    summary = train_in(Process(CPU), recipe, tmp_path / "run", quiet=True)
    peaks = [row["peak_memory_mib"] for row in read_metrics(tmp_path / "run")]
    assert 50 < peaks[0] <= peaks[1] <= peak_mib(CPU)
    assert summary["peak_memory_mib"] == peaks[1]


def test_bench_tells_the_largest_batch(digit_folder: Path, igcv_command: Igcv) -> None:
    arguments = ("bench", "data", *SMALL, "--data", digit_folder, "--device", "cpu", "--seconds", "0.2")
    figures = json.loads(igcv_command(*arguments, "--json").out)
    assert figures["peak_memory_mib"] > 50 and figures["largest_batch_size"] > 8
    said = igcv_command(*arguments).out
    assert "peak memory, MiB" in said and "estimated largest batch_size" in said
