"""Names of earlier versions: they work with a warning, and disappear when their time is over."""

import importlib
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

import igcv
from igcv.renamed import RENAMED, UNTIL, Renamed


def resolved(name: str) -> object:
    """Return what a full name stands for."""
    module, _, attribute = name.rpartition(".")
    return getattr(importlib.import_module(module), attribute)


@pytest.mark.parametrize("old", RENAMED)
def test_an_old_name_gives_the_new_object_and_a_warning(old: str) -> None:
    new, until = RENAMED[old]
    with pytest.warns(
        DeprecationWarning, match=f"{old} is now {new}. The old name works until igcv {until}"
    ) as found:
        value = resolved(old)
    assert found[0].filename == __file__
    with warnings.catch_warnings(action="error"):
        assert value is resolved(new)


def test_no_name_outlives_its_time() -> None:
    version = tuple(map(int, igcv.__version__.split(".")[:2]))
    for renamed, until in UNTIL.items():
        major, minor = map(int, renamed.split("."))
        assert until == f"{major}.{minor + 2}"
        assert version < (major, minor + 2), (
            f"delete the entry {renamed} of UNTIL in igcv/renamed.py, its names, their modules and decorators"
        )


def test_igcv_itself_may_have_old_names(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(RENAMED, "igcv.open_network", Renamed("igcv.load", "0.4"))
    with pytest.warns(DeprecationWarning, match="igcv.open_network is now igcv.load") as found:
        assert igcv.open_network is igcv.load
    assert found[0].filename == __file__


def test_the_old_argument_of_load() -> None:
    with pytest.warns(DeprecationWarning, match=r"the argument 'path' of load\(\) is now what"):
        classifier = igcv.load(path="igcv3_w_025.digits")
    assert classifier.card.model == "igcv3_w_025"


def test_old_weights_by_the_name_of_the_network() -> None:
    with pytest.warns(DeprecationWarning, match="find_released is now"):
        path = resolved("igcv.weights.find_released")("igcv3_w_025")
    assert Path(path).name == "igcv3_w_025.digits.safetensors"


def test_packages_need_no_import_of_their_own() -> None:
    names = ("igcv.data.write_records", "igcv.models.channel_shuffle", "igcv.mxnet")
    code = f"import igcv; print(*(each.__name__ for each in ({', '.join(names)})))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.stdout == "write_records channel_shuffle igcv.mxnet\n", done.stderr


@pytest.mark.parametrize("module", ["igcv.mxnet", "igcv.models", "igcv.report"])
def test_other_names_do_not_exist(module: str) -> None:
    with pytest.raises(AttributeError, match=f"module '{module}' has no attribute 'nothing'"):
        resolved(f"{module}.nothing")
