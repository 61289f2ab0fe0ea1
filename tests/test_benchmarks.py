"""Tests of the benchmarks: comparable networks, arithmetic and generated pages."""

import json
from pathlib import Path

import pytest
import torch
from torch.profiler import record_function

from igcv.analysis import network_cost
from studies.benchmarks import (
    imagenet,
    latency,
    networks,
    predict,
    training_limits,
    training_page,
    training_profile,
)
from studies.benchmarks.training_entries import entries
from studies.benchmarks.training_steps import without_remedies


@pytest.mark.parametrize("size", [32, 224])
def test_all_mobilenets_cost_the_same(size: int) -> None:
    names = ("mobilenetv2_100", "timm mobilenetv2_100", "torchvision mobilenet_v2")
    mobilenets = [networks.NETWORKS[name](size) for name in names]
    assert len({network_cost(network, torch.zeros(1, 3, size, size)) for network in mobilenets}) == 1


def test_ratios_are_taken_within_rounds() -> None:
    rows = [
        {"label": "ours", "rates": [20.0, 40.0, 30.0]},
        {"label": "theirs", "rates": [10.0, 10.0, 20.0]},
    ]
    assert training_page.ratio(rows, "ours", "theirs") == "2.00 (1.50 to 4.00)"
    assert training_page.ratio(rows, "ours", "somebody else's") is None


def test_bytes_and_operations_by_hand(monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False))
    monkeypatch.setitem(networks.NETWORKS, "one layer", lambda size: layer)
    found = training_limits.image_load("one layer", 16)
    assert found["gflop"] == pytest.approx(6 * 3 * 8 * 9 * 16 * 16 / 1e9)
    assert found["mb"] == pytest.approx(5 * 4 * 8 * 16 * 16 / 1e6)


@pytest.mark.parametrize("before", [True, False])
def test_a_step_is_profiled_by_kind_of_call(monkeypatch: pytest.MonkeyPatch, before: bool) -> None:
    from timm.utils import ModelEmaV3

    from igcv.models import blocks, gradients

    monkeypatch.setattr(blocks, "match_gradient_format", blocks.match_gradient_format)  # restored later
    monkeypatch.setattr(gradients, "FAST_BF16", gradients.FAST_BF16)
    if before:
        without_remedies()
    network = networks.NETWORKS["igcv3_d_half"](32).train()
    optimizer = torch.optim.SGD(network.parameters(), lr=1e-3, momentum=0.9)
    average = ModelEmaV3(network)

    def step() -> None:
        network(torch.randn(2, 3, 32, 32)).square().mean().backward()
        with record_function("optimizer"):
            optimizer.step()
        with record_function("moving average"):
            average.update(network)

    kinds = training_profile.profiled(step)
    assert kinds.keys() >= {*training_profile.KINDS, *training_profile.RANGES, "channel-wise convolutions"}
    assert "channel-wise convolutions, backward" in kinds
    assert all(milliseconds >= 0 for milliseconds in kinds.values())


def test_kinds_of_convolutions() -> None:
    assert training_profile.kind_of_convolution([32, 16, 1, 1], "mkldnn_convolution") == "matrix products"
    found = training_profile.kind_of_convolution([144, 1, 3, 3], "convolution_backward")
    assert found == "channel-wise convolutions, backward"
    assert training_profile.kind_of_convolution([32, 3, 3, 3], "mkldnn_convolution") == "other convolutions"


def test_a_page_shows_before_and_after() -> None:
    names = entries(32, "cpu", "bf16", short=True)
    assert [c.network for c in names] == [name for name in networks.COMPARED for _ in range(2)]
    rows = [
        {
            "label": c.label,
            "before": c.before,
            "batch": c.batch,
            "rates": [10.0 if c.before else 15.0, 10.0 if c.before else 20.0, 10.0 if c.before else 16.0],
            "memory_mib": 1,
            "profile": {"matrix products": 2.0},
        }
        for c in names
    ]
    load = {"size": 32, "gflop": 1.0, "mb": 1.0}
    result = {
        "machine": {"precision": "bf16"},
        "ceilings": {"copy_gb_per_s": 1.0, "matmul_gflop_per_s": 1.0},
        "loads": [{"network": name, **load} for name in ("igcv3_d_100", "mobilenetv2_100")],
        "sizes": {"32": rows},
        "growth": {},
    }
    page = training_page.page(result, "")
    gain = "10.0 (10.0 to 10.0) | 16.0 (15.0 to 20.0) | 1.60 (1.50 to 2.00) | 1.00 (1.00 to 1.00)"
    assert f"| igcv3_d_p50, auto | {gain} |" in page
    assert "| 32 | igcv3_d_half, auto | mobilenetv2_100 | 1.00 (1.00 to 1.00) | 1.1 |" in page
    assert "| total | 2 | 2 | 2 | 2 |" in page


def test_hours_of_imagenet() -> None:
    """480 epochs at 1000 images per second take 7.1 days, and an eighth of the time on eight GPUs."""
    assert imagenet.hours(480, 1000, 1) == pytest.approx(480 * 1281.167 / 3600)
    result = {
        "machine": {"gpu": "some"},
        "precision": "bf16",
        "decoded_per_core": 200.0,
        "rows": [
            {"batch": 96, "device": "cuda", "rates": [900.0], "memory_mib": 1000},
            {"batch": 256, "device": "cuda", "rates": [1000.0, 990.0, 1010.0], "memory_mib": 2000},
        ],
    }
    page = imagenet.page(result)
    assert "| [imagenet_mxnet](../../../recipes/imagenet_mxnet.toml) | 480 | 171 | 21.4 | 2.7 |" in page
    assert "| 8 | 8,000 | 40 |" in page
    # 100 epochs at 128, 176 and 224 pixels each: (0.3265 + 0.6173 + 1) * 100 epochs at full size
    assert "| [imagenet_300](../../../recipes/imagenet_300.toml) | 300 | 69.2 | 8.6 | 1.1 |" in page


def test_latencies_of_other_machines_are_not_mixed_in(tmp_path: Path) -> None:
    file, about = tmp_path / "latency_cpu.json", {"processor": "one", "torch": "2", "date": "2026-01-01"}
    assert latency.earlier_rows(file, about) == []
    file.write_text(json.dumps({"machine": about, "rows": [{"label": "a network"}]}))
    assert latency.earlier_rows(file, {**about, "date": "2026-02-01"}) == [{"label": "a network"}]
    assert latency.earlier_rows(file, {**about, "torch": "3"}) == []
    assert latency.earlier_rows(file, {**about, "processor": "another"}) == []


def test_predictions_in_batches_beside_one_at_a_time(digit_folder: Path) -> None:
    files = sorted(str(path) for path in digit_folder.rglob("*.png"))[:3]
    measured = predict.rates(predict.classifier_of("igcv3_w_010"), files, batch_size=2, rounds=2)
    assert [len(rates) for rates in measured.values()] == [2, 2]
    with pytest.raises(AssertionError):
        predict.check_same([("a", 0.5)], [("a", 0.6)])
    rates = {"one image at a time": [10.0, 20.0], "igcv.predict, batches of 2": [20.0, 30.0]}
    result = {"rates": rates, "network": "n", "images": 3, "torch_threads": 2, "machine": {"cores": 2}}
    assert "| igcv.predict, batches of 2 | 25.0 (20.0 to 30.0) | 1.75 (1.50 to 2.00) |" in predict.page(
        result
    )
