"""Tests of precision = "auto": bf16 only if native and faster; a resumed run keeps the choice."""

import json
import os
import platform
from pathlib import Path

import pytest
import torch

from igcv.errors import InputError
from igcv.machine import precision as chooser
from igcv.machine.precision import choose_precision, has_native_bf16, step_times
from igcv.machine.processes import Process
from igcv.models import build_model
from igcv.training import load_recipe
from igcv.training.phases import train_in
from igcv.weights import load_weights
from studies.soak.lives import ended
from tests.conftest import Igcv

CPU = Process(torch.device("cpu"))
SMALL = ["model=igcv3_w_010", "input_size=16", "batch_size=8", "augment=shift", "epochs=1", "workers=0"]


def machine(monkeypatch: pytest.MonkeyPatch, native: bool, bf16_s: float) -> None:
    """Simulate a machine on which a float32 step takes one second."""
    monkeypatch.setattr(chooser, "has_native_bf16", lambda device: native)
    monkeypatch.setattr(chooser, "step_times", lambda *given: {"float32": 1.0, "bf16": bf16_s})


def run(data: Path, out: Path, *settings: str, resume: bool = False) -> str:
    """Train; return the precision in the run folder."""
    train_in(CPU, load_recipe(None, [*SMALL, f"data={data}", *settings]), out, resume=resume, quiet=True)
    kept = load_recipe(out / "recipe.toml").precision
    assert load_weights(out / "last.safetensors")[1].recipe["precision"] == kept
    return kept


@pytest.mark.parametrize(
    "native, bf16_s, precision, reason",
    [
        (True, 0.5, "bf16", "auto: a step in bf16 is 2.00 times as fast as in float32"),
        (True, 1.25, "float32", "auto: a step in bf16 is 0.80 times as fast as in float32"),
        (False, 0.5, "float32", "auto: no native bf16 on this device"),
    ],
)
def test_what_is_chosen(
    native: bool, bf16_s: float, precision: str, reason: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, native, bf16_s)
    assert choose_precision(torch.nn.Linear(1, 1), torch.zeros(1, 1)) == (precision, reason)


def test_a_resumed_run_keeps_its_precision(
    digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run resumed on another machine with auto in the recipe keeps its precision."""
    machine(monkeypatch, True, 0.5)
    assert run(digit_folder, tmp_path / "run", "precision=auto") == "bf16"
    machine(monkeypatch, False, 2.0)
    assert run(digit_folder, tmp_path / "run", "precision=auto", "epochs=2", resume=True) == "bf16"
    with pytest.raises(InputError, match="precision: got float32, expected bf16 as in the run"):
        run(digit_folder, tmp_path / "run", "epochs=3", resume=True)


def test_the_headline_says_it(
    digit_folder: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine(monkeypatch, True, 0.5)
    settings = [
        *SMALL,
        "precision=auto",
        f"data={digit_folder}",
        "--device",
        "cpu",
        "--out",
        tmp_path / "run",
    ]
    said = igcv_command("train", *settings).out
    assert "CPU, bf16 (auto: a step in bf16 is 2.00 times as fast as in float32); for 1 epoch" in said
    said = igcv_command("train", "--resume", "epochs=2", "--device", "cpu", "--out", tmp_path / "run").out
    assert "CPU, bf16; resuming after epoch 1" in said


def test_measuring_leaves_the_network_as_it_was() -> None:
    network = build_model("igcv3_w_010", 2, input_size=16).eval()
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    times = step_times(network, torch.randn(2, 3, 16, 16))
    assert times.keys() == {"float32", "bf16"} and min(times.values()) > 0
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    assert not network.training and all(p.grad is None for p in network.parameters())


@pytest.mark.parametrize(
    "machine, flag", [("x86_64", "avx512_bf16"), ("x86_64", "amx_bf16"), ("aarch64", "bf16")]
)
def test_native_bf16_by_the_flags_of_linux(
    machine: str, flag: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("avx512_bf16", "amx_tile"):
        monkeypatch.setattr(torch.cpu, f"_is_{name}_supported", lambda: False, raising=False)
    monkeypatch.setattr(platform, "machine", lambda: machine)
    title = "Features" if machine == "aarch64" else "flags"
    file = tmp_path / "cpuinfo"
    monkeypatch.setattr(chooser, "Path", lambda path: file)
    for flags, native in ((f"fpu {flag} sse", True), ("fpu sse avx512f i8mm", False)):
        file.write_text(f"processor\t: 0\n{title}\t\t: {flags}\n")
        assert has_native_bf16(torch.device("cpu")) is native
    file.unlink()
    assert has_native_bf16(torch.device("cpu")) is False
    assert has_native_bf16(torch.device("mps")) is False


def measure_something_else() -> None:
    """Simulate native bf16 on rank 0 only."""
    chooser.has_native_bf16 = lambda device: os.environ["RANK"] == "0"  # type: ignore[assignment]
    chooser.step_times = lambda *given: {"float32": 1.0, "bf16": 0.5}


def test_two_processes_agree(digit_folder: Path, tmp_path: Path) -> None:
    """All processes use one precision, whatever each of them measures."""
    arguments = ["train", *SMALL, "precision=auto", f"data={digit_folder}", "--device", "cpu"]
    log = tmp_path / "log"
    codes = ended([*arguments, "--out", str(tmp_path / "run")], 2, log, measure_something_else)
    assert codes == [0, 0], log.read_text()
    assert load_recipe(tmp_path / "run" / "recipe.toml").precision == "bf16"
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["machine"]["processes"] == 2


def test_bench_resolves_it(digit_folder: Path, igcv_command: Igcv) -> None:
    settings = [*SMALL, "precision=auto", "--data", digit_folder, "--device", "cpu", "--seconds", "0.2"]
    assert igcv_command("bench", "data", *settings).status == 0
