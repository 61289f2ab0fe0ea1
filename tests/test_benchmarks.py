"""The benchmarks compare like with like, and their arithmetic is right."""

from pathlib import Path
from types import ModuleType

import pytest
import torch

from igcv.analysis import network_cost


@pytest.fixture
def training(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    """benchmarks/training.py as a module."""
    monkeypatch.syspath_prepend(Path(__file__).parents[1] / "benchmarks")
    import training

    return training


@pytest.mark.parametrize("size", [32, 224])
def test_all_mobilenets_cost_the_same(training: ModuleType, size: int) -> None:
    names = ("mobilenetv2_100", "timm mobilenetv2_100", "torchvision mobilenet_v2")
    networks = [training.NETWORKS[name](size) for name in names]
    assert len({network_cost(network, torch.zeros(1, 3, size, size)) for network in networks}) == 1


def test_ratios_are_taken_within_rounds(training: ModuleType) -> None:
    rows = [
        {"label": "ours", "rates": [20.0, 40.0, 30.0]},
        {"label": "theirs", "rates": [10.0, 10.0, 20.0]},
    ]
    assert training.ratio(rows, "ours", "theirs") == "2.00 (1.50 to 4.00)"
    assert training.ratio(rows, "ours", "somebody else's") is None


def test_bytes_and_operations_by_hand(training: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    layer = torch.nn.Sequential(torch.nn.Conv2d(3, 8, 3, padding=1, bias=False))
    monkeypatch.setitem(training.NETWORKS, "one layer", lambda size: layer)
    found = training.load("one layer", 16)
    assert found["gflop"] == pytest.approx(6 * 3 * 8 * 9 * 16 * 16 / 1e9)
    assert found["mb"] == pytest.approx(5 * 4 * 8 * 16 * 16 / 1e6)
