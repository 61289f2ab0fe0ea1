"""Tests of paths: `~` and relative paths in specs, recipes, lists and weights; short names of data sets."""

import json
import shutil
from pathlib import Path

import pytest

import igcv
from igcv.data.sources.open import open_source
from igcv.data.sources.spec import is_public, located
from igcv.errors import InputError
from igcv.training import load_recipe
from igcv.training.draft import resolve_recipe
from igcv.training.recipe import Recipe
from tests.conftest import Igcv

TINY = ("model=igcv3_w_010", "input_size=16", "batch_size=4", "epochs=1", "workers=0", "precision=float32")


@pytest.fixture
def home(digit_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a home folder with photos/ and work/, the working folder."""
    shutil.copytree(digit_folder, tmp_path / "photos")
    (tmp_path / "work").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path / "work")
    return tmp_path


def test_specs(home: Path) -> None:
    places = {
        "folder:~/photos": f"folder:{home}/photos",
        "folder:../photos/": f"folder:{home}/photos",
        "../photos": f"folder:{home}/photos",
        "~/photos": f"folder:{home}/photos",
        "rec:a.rec,~/b.rec": f"rec:{home}/work/a.rec,{home}/b.rec",
        "rec:,b.rec": f"rec:,{home}/work/b.rec",
        "train:train:folder:~/photos": f"train:train:folder:{home}/photos",
        "timm/wds/shards": f"timm/wds/{home}/work/shards",
        "cifar10:.": f"cifar10:{home}/work",
        **{
            same: same
            for same in ("", "digits", "cifar10", "train:digits", "folder:", "timm/hfds/me/pets", "fodler:x")
        },
    }
    assert {spec: located(spec) for spec in places} == places
    assert {located(spec) for spec in places.values()} == set(
        places.values()
    )  # a second call changes nothing
    source = open_source("folder:~/photos")
    assert (source.spec, source.name, len(source.val)) == (f"folder:{home}/photos", "photos", 10)


def test_what_is_not_there_is_told_with_its_place(home: Path) -> None:
    with pytest.raises(InputError, match=f"{home}/work/fotos: cannot be read as a folder"):
        open_source("folder:fotos")
    with pytest.raises(InputError, match=f"unknown data source 'fotos'.*searched in {home}/work"):
        open_source("fotos")
    with pytest.raises(InputError, match=f"no complete data set in {home}/work/data/cifar-10-batches-py"):
        open_source("cifar10", download=False)


def test_settings_that_name_places(home: Path) -> None:
    (home / "mine.toml").write_text(
        'data = "folder:../photos"\nsplit = "~/list.csv"\ninit_from = "old/best.safetensors"\n'
    )
    recipe = load_recipe(home / "mine.toml")
    assert (recipe.data, recipe.split) == (f"folder:{home}/photos", f"{home}/list.csv")
    assert recipe.init_from == f"{home}/work/old/best.safetensors"
    assert resolve_recipe("~/mine.toml", {}) == recipe
    for name in ("none", "igcv3_w_025.digits"):  # not a path
        assert load_recipe(None, init_from=name).init_from == name
    resolved = resolve_recipe(Recipe(data="../photos"), {})
    assert isinstance(resolved, Recipe) and resolved.data == f"folder:{home}/photos"


def test_a_run_knows_its_images_from_every_folder(
    home: Path, monkeypatch: pytest.MonkeyPatch, igcv_command: Igcv
) -> None:
    trained = igcv_command("train", "--data", "folder:../photos", "--out", "run", "--device", "cpu", *TINY)
    assert trained.status == 0, trained.err
    assert "\nphotos: 24 training and 10 validation images; " in trained.out
    assert f"{home}/photos" not in trained.out
    monkeypatch.chdir("/")
    run = home / "work" / "run"
    evaluated = igcv_command("evaluate", run, "--device", "cpu")
    assert evaluated.status == 0 and f"{run} on photos: 10 images" in evaluated.out
    resumed = igcv_command("train", "--resume", "--out", run, "epochs=2", "--device", "cpu")
    assert resumed.status == 0, resumed.err
    assert igcv.evaluate("~/work/run", data="~/photos", device="cpu").images == 10
    summary = json.loads((run / "summary.json").read_text())
    assert summary["data"] == "photos" and igcv.load(run).card.results["data"] == "photos"
    page = (run / "report.html").read_text()
    assert "<dt>data</dt><dd>photos</dd>" in page and "<title>igcv3_w_010 on photos · igcv</title>" in page
    assert f"folder:{home}" not in page
    again = igcv_command(
        "train", "--data", "~/photos", "--out", run, "--device", "cpu", "epochs=2", *TINY[:3], *TINY[4:]
    )
    assert again.status == 0 and "is complete. To train longer: " in again.out


def test_a_name_that_the_user_gives(home: Path, igcv_command: Igcv) -> None:
    trained = igcv_command("train", "--data", "../photos", "--device", "cpu", "data_name=My zeros", *TINY)
    assert trained.status == 0, trained.err
    assert "\nMy zeros: 24 training" in trained.out and "runs/my_zeros" in trained.out
    assert igcv.load("runs/my_zeros").card.results["data"] == "My zeros"
    assert "on My zeros: 10 images" in igcv_command("evaluate", "runs/my_zeros", "--device", "cpu").out


def test_whose_images_are_public() -> None:
    specs = (
        "digits",
        "cifar10",
        "cifar100:/data",
        "train:digits",
        "folder:cifar10",
        "rec:a.rec",
        "timm/hfds/me/pets",
    )
    assert [is_public(spec) for spec in specs] == [True] * 4 + [False] * 3
