"""Imports at startup: commands and extras load on demand, and timm works in any order of imports."""

import importlib
import pkgutil
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import timm
import torch
from PIL import Image

import igcv
from tests.conftest import ONE_THREAD

HEAVY = (
    "timm",
    "torchvision",
    "torch._dynamo",
    "sympy",
    "sklearn",
    "plotly",
    "matplotlib",
    "jinja2",
    "tensorboard",
)
EXTRAS = ("sklearn", "plotly", "matplotlib", "jinja2", "tensorboard", "onnx", "onnxruntime", "openvino")

RUN = """
import sys
from igcv.commands.main import main
try:
    main()
finally:
    print([name for name in {names} if name in sys.modules])
"""
# An environment without some packages: their imports fail as if they were not installed.
WITHOUT = """
import sys
from importlib.abc import MetaPathFinder
class Missing(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.partition(".")[0] in {names}:
            raise ModuleNotFoundError(name)
import importlib.util
found = importlib.util.find_spec
importlib.util.find_spec = lambda name, *more: None if name in {names} else found(name, *more)
sys.meta_path.insert(0, Missing())
from igcv.commands.main import main
main()
"""


def python(code: str, *arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a program in a separate process."""
    command = [sys.executable, "-W", "ignore", "-c", code, *map(str, arguments)]
    return subprocess.run(command, env=ONE_THREAD | {"COLUMNS": "200"}, capture_output=True, text=True)


@pytest.mark.parametrize(
    "arguments", [("--help",), ("--version",), ("train", "--help"), ("export", "--help")]
)
def test_help_loads_no_torch(arguments: tuple[str, ...]) -> None:
    done = python(RUN.format(names=("torch", "numpy", "PIL", *HEAVY)), *arguments)
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")


def test_the_version() -> None:
    """With the versions of the libraries, without loading them."""
    lines = python(RUN.format(names=("torch", "timm")), "--version").stdout.splitlines()
    assert lines[0] == f"igcv {igcv.__version__}" and lines[-1] == "[]"
    assert (
        f"torch {torch.__version__.partition('+')[0]}" in lines[1] and f"timm {timm.__version__}" in lines[1]
    )


def test_predict_loads_torch_and_little_else(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "image.png")
    done = python(RUN.format(names=HEAVY), "predict", "igcv3_w_025.digits", tmp_path / "image.png")
    assert done.returncode == 0, done.stderr
    assert done.stdout.endswith("[]\n")


def test_importing_igcv_loads_nothing() -> None:
    done = python("import sys, igcv; print([n for n in ('torch', 'numpy', 'timm') if n in sys.modules])")
    assert done.stdout == "[]\n"


@pytest.mark.parametrize(
    "order", ["import igcv, timm", "import timm, igcv", "import igcv; from timm import models"]
)
def test_timm_knows_the_names_in_any_order(order: str) -> None:
    code = f"{order}; import timm; print(type(timm.create_model('igcv3_d_050', num_classes=3)).__module__)"
    done = python(code)
    assert done.stdout == "igcv.models.network\n", done.stderr


def test_every_public_name_is_there() -> None:
    assert {name for names in igcv._HOMES.values() for name in names} | {"InputError", "__version__"} == set(
        igcv.__all__
    )
    assert all(getattr(igcv, name) is not None for name in igcv.__all__)
    assert set(igcv.__all__) <= set(dir(igcv))
    with pytest.raises(AttributeError, match="has no attribute 'trainer'"):
        igcv.trainer  # noqa: B018


def test_training_and_predicting_without_the_extras(digit_folder: Path, tmp_path: Path) -> None:
    """`pip install igcv` suffices to train, evaluate and predict; a line names the skipped outputs."""
    without, run = WITHOUT.format(names=EXTRAS), tmp_path / "run"
    settings = ["model=igcv3_w_010", "input_size=16", "epochs=1", "batch_size=8", "workers=0"]
    done = python(without, "train", f"data={digit_folder}", *settings, "--device", "cpu", "--out", run)
    assert done.returncode == 0, done.stderr
    assert (
        "not written: TensorBoard events and report.html; install them with: pip install 'igcv[report]'"
        in done.stdout
    )
    assert "tensorboard --logdir" not in done.stdout and not (run / "report.html").exists()
    image = next((digit_folder / "val" / "zero").iterdir())
    assert "zero" in python(without, "predict", run, image).stdout
    assert "top-1" in python(without, "evaluate", run, "--device", "cpu").stdout
    for arguments, extra in (
        (("report", run), "report"),
        (("summary", "igcv3_d_025", "--plot", tmp_path / "block.svg"), "report"),
        (("train", "data=digits", "--out", tmp_path / "digits"), "demo"),
        (("export", run, "--out", tmp_path / "a.onnx"), "deploy"),
    ):
        done = python(without, *arguments)
        assert done.returncode == 2, done.stderr
        assert done.stderr.endswith(f"which is not installed: pip install 'igcv[{extra}]'\n")


def test_no_module_is_hidden_by_a_function_of_its_name() -> None:
    names = [
        found.name for found in pkgutil.walk_packages(igcv.__path__, "igcv.") if "__main__" not in found.name
    ]
    for name in names:
        importlib.import_module(name)
    for name in names:
        parent, _, leaf = name.rpartition(".")
        assert isinstance(getattr(importlib.import_module(parent), leaf), ModuleType), name


# Ctrl-C just before the import of a module.
INTERRUPTED = """
import os, signal, sys
from importlib.abc import MetaPathFinder
class Stop(MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name == "{name}":
            os.kill(os.getpid(), signal.SIGINT)
sys.meta_path.insert(0, Stop())
from igcv.commands.main import main
main()
"""


@pytest.mark.parametrize(
    "name",
    [
        "typer",
        "rich.console",
        "torch",
        "torch.nn",
        "numpy.linalg._linalg",
        "timm.data",
        "igcv.training.phases",
    ],
)
def test_ctrl_c_while_libraries_load(name: str, tmp_path: Path) -> None:
    ended = python(INTERRUPTED.format(name=name), "train", "--data", "digits", "--out", tmp_path / "run")
    assert (ended.returncode, ended.stdout, ended.stderr) == (130, "", "")
    assert not (tmp_path / "run").exists()
