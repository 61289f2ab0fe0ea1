"""Tests of latency measurements: the entries and the arithmetic of the results."""

import json
from pathlib import Path

import pytest

from igcv.deploy.latency import Latency, latency_entry, matrix_rate, ratios
from igcv.errors import InputError
from tests.conftest import Igcv


def test_ratios_are_taken_within_rounds() -> None:
    ours, theirs = (Latency("", times, 1.0, 1.0, None) for times in ((2.0, 6.0, 4.0), (1.0, 2.0, 4.0)))
    assert ratios(ours, theirs) == (2.0, 1.0, 3.0)


def test_contestants() -> None:
    named = latency_entry("mobilenetv2_100", None, 1, 1)
    assert (named.label, named.shape, named.uint8) == ("mobilenetv2_100, torch, auto", (3, 224, 224), False)
    assert named.multiply_adds == 300_774_272  # the published 300 M
    assert latency_entry("igcv3_d_025", "onnx", 1, 1, "dense", 64).shape == (3, 64, 64)
    assert matrix_rate(1) > 1e8


def test_the_command(digits_run: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    file = tmp_path / "digits.onnx"
    arguments = ("--form", "dense", "--with-preprocessing")
    assert igcv_command("export", digits_run, "--out", file, *arguments).status == 0
    outcome = igcv_command(
        "bench", "latency", file, digits_run, "--form", "dense", "--rounds", 2, "--batch", 2, "--json"
    )
    assert outcome.status == 0, outcome.err
    first, second = map(json.loads, outcome.out.splitlines())
    assert (first["network"], first["batch"]) == (str(file), 2)
    assert first["low_ms"] <= first["median_ms"] <= first["high_ms"]
    assert first["images_per_s"] == pytest.approx(2000 / first["median_ms"])
    assert second["network"] == f"{digits_run}, torch, dense" and 0 < second["share"] < 1
    table = igcv_command("bench", "latency", file, "--rounds", 1)
    assert table.status == 0 and "images/s" in table.out and "1.00" in table.out


def test_wrong_input(digits_run: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    damaged = tmp_path / "damaged.onnx"
    damaged.write_bytes(b"no graph")
    for arguments, message in (
        ((damaged,), "engine 'onnx' cannot open"),
        (("igcv3_d_10",), "unknown model 'igcv3_d_10'; did you mean"),
        (("igcv3_d_025", "--engine", "tensorrt"), "unknown engine 'tensorrt'"),
        ((tmp_path / "none.onnx",), "file not found"),
        ((tmp_path / "none.safetensors",), "file not found"),
        ((tmp_path,), "no weights in"),
    ):
        outcome = igcv_command("bench", "latency", *arguments)
        assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1, outcome.err


def test_a_file_in_another_engine(tmp_path: Path, digits_run: Path, igcv_command: Igcv) -> None:
    file = tmp_path / "digits.xml"
    assert igcv_command("export", digits_run, "--out", file, "--form", "dense").status == 0
    with pytest.raises(InputError, match="engine 'onnx' cannot read"):
        latency_entry(str(file), "onnx", 1, 1).open()
