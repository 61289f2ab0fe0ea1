"""Unwritable disks and folders: one error line before the work starts, or a reported fallback."""

import os
import shutil
from contextlib import suppress
from pathlib import Path

import pytest

from igcv import cache
from igcv.errors import InputError
from igcv.training import Recipe, phases
from igcv.writing import check_writable
from studies.soak.faults import small_disk
from tests.conftest import Igcv

WEIGHTS = next((Path(__file__).parents[1] / "released").glob("*.safetensors"))
NOWHERE = Path("/proc/igcv")  # not writable, even for root


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make slow work fail the test."""

    def busy(*given: object, **named: object) -> None:
        raise AssertionError("work began")

    for place in (
        "training.phases.resolve",
        "deploy.exporter.images_to_compare",
        "evaluation.predictions.find_images",
    ):
        monkeypatch.setattr(f"igcv.{place}", busy)
    monkeypatch.setattr("igcv.training.check.resolve", busy)


@pytest.mark.parametrize(
    "words",
    [
        ["train", "--data", "digits", "--device", "cpu", "--out", NOWHERE / "run"],
        ["check", "digits", "--device", "cpu", "--out", NOWHERE / "page.html"],
        ["predict", WEIGHTS, WEIGHTS, "--sort-into", NOWHERE / "sorted"],
        ["predict", WEIGHTS, WEIGHTS, "--out", "/proc/table.csv"],
        ["export", WEIGHTS, "--out", "/proc/a.onnx"],
        ["web", WEIGHTS, "--out", "/proc/page"],
        ["convert", WEIGHTS, "/proc/a-0000.params"],
    ],
    ids=lambda words: str(words[0]),
)
@pytest.mark.usefixtures("no_work")
def test_an_output_that_cannot_be_written(words: list[object], igcv_command: Igcv) -> None:
    ended = igcv_command(*words)
    assert (ended.status, ended.out) == (2, "")
    assert ended.err.startswith("igcv: cannot write to '/proc': ") and ended.err.count("\n") == 1
    assert "choose another folder" in ended.err


def test_a_full_disk(tmp_path: Path) -> None:
    check_writable(tmp_path / "not" / "there" / "yet")
    assert not list(tmp_path.iterdir())
    disk = tmp_path / "disk"
    with suppress(OSError), small_disk(disk, 64):  # OSError: mounting is not allowed
        check_writable(disk)
        (disk / "full").write_bytes(bytes(shutil.disk_usage(disk).free))
        with pytest.raises(InputError, match=r"disk': No space left on device\. Free disk space"):
            check_writable(disk)


def test_a_run_on_a_full_disk_ends_before_its_data_are_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(folder: Path) -> None:
        raise InputError(f"cannot write to '{folder}': full")

    monkeypatch.setattr(phases, "check_writable", full)
    with pytest.raises(InputError, match=r"run': full"):
        phases.train(Recipe(data="folder:nothing"), tmp_path / "run", device="cpu")


def test_a_cache_that_cannot_be_written_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, igcv_command: Igcv
) -> None:
    monkeypatch.setenv("IGCV_CACHE", str(NOWHERE))
    monkeypatch.setattr("igcv.deploy.write.folded_for", lambda *given: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        igcv_command("export", WEIGHTS, "--out", tmp_path / "a.onnx")
    assert cache.unwritable().startswith("cannot write to '/proc': ")
    assert cache.unwritable().endswith("choose another folder with IGCV_CACHE")
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path / "cache"))
    assert cache.unwritable() == ""


def test_a_user_without_a_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def homeless() -> Path:
        raise RuntimeError("Could not determine home directory.")

    for name in ("IGCV_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    monkeypatch.setattr(Path, "home", homeless)
    assert cache.cache_folder() == tmp_path / f"igcv-{os.getuid()}"
