"""Small real data for all tests, and the command line in the test process.

The main process of pytest-xdist imports this module without running tests, so slow imports are inside the functions.
"""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import pytest

from igcv.commands.main import main
from tests.browser import browser

if TYPE_CHECKING:
    from igcv.models import Network
    from tests.weights_server import Published

# Shells start background jobs with Ctrl-C ignored, and child processes inherit this.
for number, heard in (
    (signal.SIGINT, signal.default_int_handler),
    (signal.SIGTERM, signal.SIG_DFL),
    (signal.SIGHUP, signal.SIG_DFL),
):
    if signal.getsignal(number) is signal.SIG_IGN:
        signal.signal(number, heard)
os.environ["IGCV_OFFLINE"] = "1"  # tests of downloads use a local server
if shutil.which("nvidia-smi") is None:
    os.environ["TRITON_INTERPRET"] = "1"  # kernels for GPUs run on the CPU; read when triton is imported
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1"}
Igcv = Callable[..., "Outcome"]


class Outcome(NamedTuple):
    """Exit status and output of a command."""

    status: int
    out: str
    err: str


@pytest.fixture
def igcv_command(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Igcv:
    """Return a function that runs `igcv ...` in this process and returns its outcome."""

    def run(*arguments: object) -> Outcome:
        monkeypatch.setattr(sys, "argv", ["igcv", *map(str, arguments)])
        monkeypatch.setenv("COLUMNS", "200")
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        printed = capsys.readouterr()
        return Outcome(int(end.value.code or 0), printed.out, printed.err)

    return run


@pytest.fixture(scope="session")
def digit_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of handwritten zeros and ones: 24 training and 10 validation images, 16 x 16 pixels."""
    from studies.soak.photos import write_digits

    return write_digits(tmp_path_factory.mktemp("digits"))


@pytest.fixture(scope="session")
def digits_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the run folder of a small IGCV3, trained for two epochs on scikit-learn's digits."""
    import torch

    from igcv.machine.processes import Process
    from igcv.training import find_recipe, load_recipe
    from igcv.training.phases import train_in

    folder = tmp_path_factory.mktemp("runs") / "digits"
    settings = ["model=igcv3_d_025", "epochs=2", "warmup_epochs=0.5", "ema_decay=0.9", "batch_size=64"]
    recipe = load_recipe(find_recipe("recipes/digits.toml"), settings)
    train_in(Process(torch.device("cpu")), recipe, folder, quiet=True)
    return folder


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    """Yield a headless browser."""
    with browser() as opened:
        yield opened


@pytest.fixture(autouse=True, scope="session")
def own_plans(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Set a separate cache folder for the tests."""
    os.environ["IGCV_CACHE"] = str(tmp_path_factory.mktemp("cache"))


def randomized(name: str, num_classes: int = 10, input_size: int = 32) -> "Network":
    """Return a network with random batch norm statistics and weights, in evaluation mode."""
    import torch

    from igcv.models import build_model

    torch.manual_seed(0)
    return randomize(build_model(name, num_classes, input_size=input_size))


def randomize(model: Any) -> Any:
    """Randomize the batch norm statistics and weights of a network, and switch it to evaluation mode."""
    import torch

    for norm in (module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)):
        for tensor, low, high in (
            (norm.running_mean, -0.25, 0.25),
            (norm.running_var, 0.5, 1.5),
            (norm.weight.data, 0.6, 1.4),
            (norm.bias.data, -0.3, 0.3),
        ):
            assert tensor is not None
            tensor.uniform_(low, high)
    return model.eval()


@pytest.fixture
def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> "Iterator[Published]":
    """Yield an empty mirror; allow downloads, with an empty cache."""
    from tests.weights_server import serving

    for name in ("IGCV_OFFLINE", "HF_HUB_OFFLINE", "http_proxy", "HTTP_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path / "cache"))
    with serving() as running:
        monkeypatch.setenv("IGCV_MIRROR", running.url)
        yield running


@pytest.fixture
def known(site: "Published", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Publish igcv3_d_025.imagenet with random weights on the mirror."""
    from tests.weights_server import SMALL, put

    return put(SMALL, site, tmp_path, monkeypatch)
