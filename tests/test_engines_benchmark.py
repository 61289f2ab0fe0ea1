"""Tests of the comparison of mobile engines: choice of forms, arithmetic, generated page and MNN."""

import json
import random
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igcv
from igcv.errors import InputError
from igcv.extras import installed
from studies.benchmarks import engines, engines_page, engines_timing, latency
from studies.benchmarks.engines_timing import BASELINE, ENTRIES, MEASURED, MNN, NETWORKS

FASTEST = {"group_branches": 6.0, "sources_group": 5.0, "partial_sums": 7.0, "literal": 8.0, "dense": 10.0}
RESULTS = Path(engines.__file__).parent / "results"


def rows(engine: str, size: int) -> list[dict[str, Any]]:
    """Return made-up rows: MobileNetV2 takes 10, 20 and 10 ms, and sources_group half of it in each round."""
    return [
        {
            "engine": engine,
            "size": size,
            "network": network,
            "form": form,
            "choice_cpu_ms": [FASTEST[form]] * 2,
            "cpu_ms": None
            if form in ("group_branches", "partial_sums")
            else [FASTEST[form], 2 * FASTEST[form], FASTEST[form]],
        }
        for network, form in ENTRIES
    ]


def result(*places: tuple[str, int]) -> dict[str, Any]:
    """Return a made-up result."""
    about = {
        "architecture": "x86_64",
        "processor": "some",
        "cores": 2,
        "threads": 1,
        "date": "2026-01-01",
        "python": "3",
        "ncnn": "1.0",
    }
    return {"machine": about, "rows": [row for place in places for row in rows(*place)]}


def test_the_page_gives_targets_times_and_forms() -> None:
    given = result(("litert", 224), ("ncnn", 224), ("litert", 32))
    page = engines_page.page(given)
    title, *lines = page.splitlines()
    assert title == "# IGCV3 and MobileNetV2 in mobile engines (x86; not measured on ARM)"
    given["machine"]["architecture"] = "aarch64"
    assert engines_page.page(given).startswith("# IGCV3 and MobileNetV2 in mobile engines (ARM)\n")
    assert "Versions: python 3, ncnn 1.0." in lines
    assert "Engines that were not measured: ExecuTorch, MNN, ONNX Runtime." in lines
    reached, absent = "0.500, reached", "not measured"
    start = f"| 224 | igcv3_d_p50 | {BASELINE} | at most 0.66"
    assert f"{start} | {reached} | {reached} | {absent} | {absent} | {absent} |" in lines
    start = "| 32 | igcv3_d_p70 | its literal form | at most 1.00"
    assert f"{start} | 0.625, reached | {absent} | {absent} | {absent} | {absent} |" in lines
    ratios = "0.50 (0.50 to 0.50; 0.50 to 0.50) | 0.62 (0.62 to 0.62; 0.62 to 0.62)"
    assert f"| ncnn | igcv3_d_half | sources_group | 5.00 (5.00 to 10.00) | {ratios} |" in lines
    assert (
        f"| LiteRT | {BASELINE} | dense | 10.00 (10.00 to 20.00) | 1.00 (1.00 to 1.00; 1.00 to 1.00) |  |"
        in lines
    )
    assert "| 32 | LiteRT | igcv3_d_100 | 0.80 | 0.60 | **0.50** | 0.70 |" in lines
    assert not any(
        "| group_branches |" in line and "ncnn" in line for line in lines
    )  # chosen from, not measured


def test_a_missed_target_says_by_how_much() -> None:
    given = result(("litert", 224))
    for row in given["rows"]:
        if (row["network"], row["form"]) == ("igcv3_d_p50", "sources_group"):
            row["cpu_ms"] = [7.0, 10.0, 9.0]  # of MobileNetV2: 0.7, 0.5, 0.9; of literal: 0.875, 0.625, 1.125
    (place,) = engines_page.places_of(given["rows"])
    assert engines_page.verdict(place, "igcv3_d_p50", BASELINE, 0.66) == "0.700, missed by 0.040"
    assert engines_page.verdict(place, "igcv3_d_p50", BASELINE, 0.7) == "0.700, reached"
    assert (
        engines_page.verdict(place, "igcv3_d_p50", engines_page.LITERAL_FORM, 0.5) == "0.875, missed by 0.375"
    )
    table = [line for line in engines_page.time_table([place]) if "| igcv3_d_p50 | sources_group |" in line]
    assert "| 0.70 (0.60 to 0.80; 0.50 to 0.90) |" in table[0]


def test_the_best_form_is_the_fastest_candidate() -> None:
    """The literal form cannot be the best form, even if it is the fastest."""
    choice = {(network, form): [FASTEST[form], 1.0, FASTEST[form]] for network, form in ENTRIES}
    for network in NETWORKS:
        choice[network, "literal"] = [1.0, 1.0, 1.0]
    choice["igcv3_d_p70", "partial_sums"] = [4.0, 4.0, 90.0]
    best = dict.fromkeys(NETWORKS, "sources_group") | {"igcv3_d_p70": "partial_sums"}
    expected = {(BASELINE, "dense"), *((name, "literal") for name in NETWORKS), *best.items()}
    assert set(engines_timing.chosen(choice)) == expected


def test_all_networks_are_timed_once_in_each_round(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, calls = [0.0], []

    def run(name: str, cost: float) -> np.ndarray:
        clock[0] += cost
        calls.append(name)
        return np.zeros(1)

    monkeypatch.setattr(engines_timing.time, "process_time", lambda: clock[0])
    costs = {("slow", ""): 0.25, ("fast", ""): 0.05}
    runs = {entry: lambda name=entry[0], cost=cost: run(name, cost) for entry, cost in costs.items()}
    times = engines_timing.time_alternately(runs, 8, random.Random(0))
    assert times == {("slow", ""): [250.0] * 8, ("fast", ""): [50.0] * 8}
    first = calls[6:]  # three runs of each network give the number of repeats
    assert (first.count("slow"), first.count("fast")) == (8 * 2, 8 * 3)
    turns = [name for name, before in zip(first, [None, *first], strict=False) if name != before]
    assert turns != ["slow", "fast"] * 8  # in random order


def test_an_engine_without_its_package_is_skipped(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(engines_timing, "installed", lambda *packages: packages != ("ncnn",))
    monkeypatch.delitem(engines_timing.WRITERS, "litert")
    assert engines.available(["onnx", "ncnn", "litert", MNN]) == ["onnx", MNN]
    printed = capsys.readouterr().err
    assert "skipping ncnn: the package ncnn is not installed" in printed
    assert "skipping LiteRT: igcv has no writer for it" in printed


@pytest.mark.parametrize("engine", ["onnx", MNN])
def test_an_engine_is_compared_with_pytorch(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if reason := engines_timing.obstacle(engine):
        pytest.skip(reason)
    logits = engines_timing.opened("igcv3_d_p50", "sources_group", engine, 32)()
    torch.manual_seed(0)
    model = igcv.create_model("igcv3_d_p50", 10, input_size=32).eval()
    with torch.inference_mode():
        expected = model(torch.randn(1, 3, 32, 32)).numpy()
    assert np.abs(logits - expected).max() < 1e-4 * np.abs(expected).max()
    fold = igcv.fold

    def damaged(*given: Any) -> Any:
        folded: Any = fold(*given)
        folded.classifier.bias.data.add_(1)
        return folded

    monkeypatch.setattr(engines_timing.igcv, "fold", damaged)
    with pytest.raises(InputError, match=f"igcv3_d_p50, form sources_group, {engine}: the logits differ"):
        engines_timing.opened("igcv3_d_p50", "sources_group", engine, 32)


@pytest.mark.skipif(not installed("MNN"), reason="needs the package MNN")
def test_mnn_takes_one_image_of_its_size() -> None:
    from studies.benchmarks.engines_mnn import mnn_session

    network = igcv.fold(igcv.create_model("igcv3_d_025", 10, input_size=32).eval(), "dense")
    session = mnn_session(network, torch.zeros(1, 3, 32, 32), 1)
    with pytest.raises(InputError, match="images: got float32"):
        session.bind(np.zeros((1, 3, 33, 32), np.float32))
    with pytest.raises(AssertionError):
        session.bind(np.zeros((2, 3, 32, 32), np.float32))


def test_the_committed_page_is_what_the_results_give() -> None:
    file = RESULTS / f"{engines.NAME}.json"
    if not file.is_file():
        pytest.skip("not measured yet: python -m studies.benchmarks.engines")
    found = json.loads(file.read_text())
    assert file.with_suffix(".md").read_text() == engines_page.page(found)
    assert {row["engine"] for row in found["rows"]} <= MEASURED.keys()


def test_other_engines_keep_their_results() -> None:
    found: list[dict[str, Any]] = []
    for place in (("ncnn", 32), ("ncnn", 224), ("litert", 224), ("ncnn", 224)):
        found = engines.replaced(found, engines_timing.Setting(*place, 1, 1), rows(*place))
    places = dict.fromkeys((row["engine"], row["size"]) for row in found)
    assert [*places] == [("litert", 224), ("ncnn", 224), ("ncnn", 32)]
    assert len(found) == 3 * len(ENTRIES)


def test_the_latency_benchmark_measures_engines_that_read_onnx(monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    monkeypatch.setattr(latency, "run", lambda rounds, places, out: found.extend(places))
    monkeypatch.setattr(sys, "argv", ["latency.py", "--quick", "--out", "."])
    latency.main()
    assert [*dict.fromkeys(engine for _, engine, *_ in found)] == ["torch", "onnx", "openvino"]
