"""Tests of the photo study: sets, skipped trainings and tables."""

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from igcv import InputError
from studies.photos.__main__ import hindrance
from studies.photos.page import page_with, table
from studies.photos.plan import FLOWERS, SETS, PhotoSet
from studies.photos.sets import in_parts, laid_out


@pytest.fixture
def flowers(tmp_path: Path) -> Path:
    for number, kind in enumerate(("daisy", "roses")):
        (tmp_path / FLOWERS / kind).mkdir(parents=True)
        for i in range(10):
            Image.new("RGB", (8, 8), (i, 20 * number, 0)).save(tmp_path / FLOWERS / kind / f"{i}.png")
    return tmp_path


def test_sets_are_links_to_the_first_photos(flowers: Path, tmp_path: Path) -> None:
    wanted = PhotoSet("few", "few", FLOWERS, {"daisy": 3, "roses": 2})
    folder = laid_out(wanted, flowers, tmp_path / "data")
    assert sorted(path.name for path in (folder / "daisy").iterdir()) == ["0.png", "1.png", "2.png"]
    assert (folder / "roses" / "1.png").resolve() == flowers / FLOWERS / "roses" / "1.png"
    assert laid_out(PhotoSet("all", "all", FLOWERS), flowers, tmp_path / "data") == flowers / FLOWERS
    with pytest.raises(InputError, match="got 10 photos, expected 11 or more"):
        laid_out(PhotoSet("more", "more", FLOWERS, {"daisy": 11}), flowers, tmp_path / "data")
    with pytest.raises(InputError, match="Give the folder that contains"):
        laid_out(wanted, tmp_path / "nowhere", tmp_path / "data")


def test_others_get_the_same_parts(flowers: Path, tmp_path: Path) -> None:
    folder = in_parts(flowers / FLOWERS, tmp_path / "parts")
    counts = [len(list((folder / part).rglob("*.png"))) for part in ("train", "validation")]
    assert sum(counts) == 20 and min(counts) >= 2


def test_what_cannot_be_trained_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    whole, cut = SETS[0], SETS[2]
    assert hindrance(whole, "scratch", None) == hindrance(whole, "by_hand", None) == ""
    assert hindrance(cut, "by_hand", None) and hindrance(cut, "timm", Path("timm"))
    assert "--timm is missing" in hindrance(whole, "timm", None)
    assert hindrance(whole, "start", None) == ""
    monkeypatch.setattr("studies.photos.__main__.photo_weights", lambda: None)
    assert "no released weights were trained on photos" in hindrance(whole, "start", None)


def test_the_table_by_hand() -> None:
    machine = {"processor": "CPU", "cores": 2, "date": "2026-11-26", "torch": "2.15.0"}
    row: dict[str, Any] = {
        "top1": 80.0,
        "balanced": 70.0,
        "images": 600,
        "largest_class": 20.0,
        "minutes": 14.9,
        "chosen": {"model": "igcv3_d_p50", "lr": 0.1},
        "machine": machine,
    }
    rows = {"flowers/scratch/0": row, "flowers/timm/0": {"top1": 30.0, "minutes": 15.2, "machine": machine}}
    text = table({"rows": rows})
    assert (
        "| flowers, five classes | 600 | 20.0 % | 80.0 % (balanced 70.0 %), 15 min | 30.0 %, 15 min |" in text
    )
    assert "| flowers, five classes | igcv3_d_p50 | 0.1 |" in text
    page = "before\n<!-- photos: written by python -m studies.photos report -->\nstale\n<!-- end of photos -->\nafter\n"
    assert page_with(page, text).count(text) == 1 and "stale" not in page_with(page, text)
    assert page_with(page_with(page, text), text) == page_with(page, text)
