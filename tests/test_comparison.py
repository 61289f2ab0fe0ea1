"""Tests of the comparison with today's small networks: rows, arithmetic and page; times are made up."""

import json
from typing import Any

import pytest
import timm
import torch

from igcv.analysis import model_cost
from igcv.weights.known import KNOWN
from studies.comparison import __main__ as command
from studies.comparison.networks import NETWORKS, PAPER, TIMM, multiply_adds, parameters
from studies.comparison.page import page_with, table
from studies.comparison.plot import plot
from studies.table.outcomes import columns
from studies.table.pages import IMAGENET

BY_NAME = {network.name: network for network in NETWORKS}


@pytest.fixture(scope="module")
def result() -> dict[str, Any]:
    """Return made-up results: in two rounds, MobileNetV2 takes 2 and 4 ms, the others 1 ms."""
    about = dict.fromkeys((*command.PACKAGES, "igcv", "processor", "architecture", "cores", "date"), "x")
    times = {network.name: [1.0, 1.0] for network in NETWORKS} | {"mobilenetv2_100": [2.0, 4.0]}
    cost = {"parameters": 3_504_872, "parameters_10_classes": 1, "multiply_adds": 3e8}
    return {"costs": dict.fromkeys(BY_NAME, cost), "engines": {"onnx": {"machine": about, "cpu_ms": times}}}


def test_ratios_are_taken_within_each_round(result: dict[str, Any]) -> None:
    lines = table(result).splitlines()
    assert len(lines[2 : 2 + len(NETWORKS)]) == len(NETWORKS) and not lines[2 + len(NETWORKS)]
    [row] = [line for line in lines if line.startswith("| MobileNetV4-Conv-S")]
    assert row == (
        "| MobileNetV4-Conv-S (2024) | 73.8 / 91.4 | 0.38 (0.25 to 0.50) | 3.50 / 0.00 M | 300 M "
        "| `mobilenetv4_conv_small.e2400_r224_in1k` |"
    )
    [row] = [line for line in lines if line.startswith("| **IGCV3-D half depth (2018)** |")]
    assert "| none | 0.38" in row and row.endswith("| 300 M |  |")


def test_the_plot(result: dict[str, Any], tmp_path: Any) -> None:
    plot(result, tmp_path / "plot.png")
    assert (tmp_path / "plot.png").stat().st_size > 10_000


def test_published_accuracies_agree_with_the_other_tables() -> None:
    known = KNOWN["mobilenetv2_100.imagenet"]
    published = BY_NAME["mobilenetv2_100"].published
    assert published is not None and (published.top1, published.top5) == (known.top1, known.top5)
    [retrained] = [row[-1] for row in IMAGENET if row[0] == "IGCV3-D 1.0x"]
    ours = BY_NAME["igcv3_d_100"].published
    assert ours is not None and (ours.source, f"{ours.top1} / {ours.top5}") == (PAPER, retrained)


@pytest.mark.parametrize("name", [name for name, network in BY_NAME.items() if network.ours])
def test_costs_agree_with_igcvs_own_count(name: str) -> None:
    network, expected = BY_NAME[name].build(1000), model_cost(name, 1000, 224)
    assert parameters(network) == expected.parameters
    assert multiply_adds(network) == expected.multiply_adds


@pytest.mark.parametrize("network", NETWORKS, ids=lambda network: network.name)
def test_every_network_exists(network: Any) -> None:
    published = network.published
    if published and published.source == TIMM:
        assert published.weights in timm.list_pretrained(network.name)
    with torch.device("meta"):
        assert network.build(1000)(torch.empty(1, 3, 224, 224)).shape == (1, 1000)


def test_networks_are_reparameterized() -> None:
    """One convolution replaces the parallel branches, with the same outputs."""
    torch.manual_seed(0)
    trained = timm.create_model("mobileone_s1", num_classes=10).eval()
    torch.manual_seed(0)
    built = BY_NAME["mobileone_s1"].build(10)
    assert parameters(built) < parameters(trained)
    images = torch.randn(1, 3, 64, 64)
    with torch.inference_mode():
        torch.testing.assert_close(built(images), trained(images), rtol=1e-3, atol=1e-4)


def test_the_page_is_up_to_date() -> None:
    page = command.PAGE.read_text()
    speed = json.loads((command.RESULTS.parent / "latency.json").read_text())["sizes"]["32"]
    assert page_with(page, command.stored(), columns(command.RESULTS.parent), speed) == page
