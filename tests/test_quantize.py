"""Tests of int8: exactness of the preparation, and a small loss of accuracy for a trained network."""

import json
from collections import Counter
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

import igcv
from igcv.data import Preprocessing
from igcv.deploy import choose
from igcv.deploy.choose import INT8_FORMS, choose_int8_plan
from igcv.deploy.folding.network import FoldedNetwork
from igcv.deploy.int8.onnx import quantize
from igcv.deploy.int8.prepare import BATCH, _linear_pairs, correct_biases, equalize, prepared, rounded
from igcv.deploy.writers.onnx import onnx_graph
from igcv.weights import save_weights
from igcv.weights.card import Card
from tests.conftest import Igcv, randomized

RELEASED = "igcv3_w_025.digits"


def calibration(count: int = 8) -> np.ndarray:
    return np.random.default_rng(0).standard_normal((count, 3, 32, 32))


def test_equalization_is_exact_and_fills_the_range() -> None:
    network = igcv.fold(randomized("igcv3_d_025").double(), "group_branches")
    images = calibration()
    before = network(torch.from_numpy(images))
    equalize(network, images)
    after = network(torch.from_numpy(images))
    assert (after - before).abs().max() < 1e-9 * before.abs().max()
    largest: list[torch.Tensor] = []
    pairs = [*_linear_pairs(network)]
    for first, _ in pairs:
        first.register_forward_hook(lambda layer, given, out: largest.append(out.abs().amax((0, 2, 3))))
    network(torch.from_numpy(images))
    assert len(pairs) == 64  # two branches in each of 32 blocks
    assert all((values < 1.001).all() and (values > 0.9)[values > 1e-3].all() for values in largest)


def test_mobilenetv2_is_left_alone() -> None:
    network = igcv.fold(randomized("mobilenetv2_035_mxnet"), "dense")
    assert not [*_linear_pairs(network)]


def test_rounding_by_hand() -> None:
    weight = torch.tensor([[1.0, -0.52, 0.26], [63.0, 0.4, 0.6]])[..., None, None]
    expected = torch.tensor([[63.0, -33.0, 16.0], [63.0, 0.0, 1.0]])  # steps of 1/63 and 1
    steps = torch.tensor([1 / 63, 1.0])[:, None]
    torch.testing.assert_close(rounded(weight)[..., 0, 0], expected * steps)


def test_bias_correction_restores_the_mean() -> None:
    """For a single pointwise layer, the mean outputs with rounded and exact weights are equal.

    The last batch has three images, and counts for as much.
    """
    torch.manual_seed(0)
    layer = nn.Conv2d(3, 4, 1).double().requires_grad_(False)
    network = nn.Sequential(layer)
    images = calibration(BATCH + 3) + 2
    images[BATCH:] *= 5
    inputs = torch.from_numpy(images)
    exact = layer(inputs).mean((0, 2, 3))
    correct_biases(network, images)  # type: ignore[arg-type]
    layer.weight.copy_(rounded(layer.weight))
    torch.testing.assert_close(layer(inputs).mean((0, 2, 3)), exact, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("suffix", [".onnx", ".xml"])
def test_a_trained_network_in_int8(tmp_path: Path, igcv_command: Igcv, suffix: str) -> None:
    """Return the released digits network: a trained network, whose answers rounding can change."""
    file = tmp_path / f"int8{suffix}"
    outcome = igcv_command("export", RELEASED, "--out", file, "--int8", "--form", "dense", "--json")
    assert outcome.status == 0, outcome.err
    figures = json.loads(outcome.out)["int8"]
    assert figures["images"] == 359
    assert figures["top1"]["float32"] > 98
    assert figures["top1"]["int8"] > figures["top1"]["float32"] - 0.6  # two images
    assert figures["agreement"] > 0.98
    if suffix == ".onnx":  # for such a small network, the .xml of OpenVINO is larger than the weights
        assert figures["bytes"]["int8"] < 0.4 * figures["bytes"]["float32"]
    assert set(figures["median_ms"]) == {"float32", "int8"}
    evaluated = igcv_command("evaluate", file, "--json")
    assert json.loads(evaluated.out)["top1"] == pytest.approx(figures["top1"]["int8"], abs=1e-3)


def test_without_validation_images_nothing_is_said_of_them(
    digit_folder: Path, tmp_path: Path, igcv_command: Igcv
) -> None:
    """Weights without training data in their card are quantized with the images of a folder."""
    model = randomized("igcv3_w_010", 2, 16)
    pre = Preprocessing(16, (0.5,) * 3, (0.5,) * 3, 1.0, "bilinear").to_dict()
    card = Card(model="igcv3_w_010", num_classes=2, input_size=16, strides=model.strides, preprocessing=pre)
    save_weights(tmp_path / "some.safetensors", model.state_dict(), card)
    arguments = ["--int8", "--form", "dense", "--calibrate", digit_folder, "--out", tmp_path / "int8.onnx"]
    outcome = igcv_command("export", tmp_path / "some.safetensors", *arguments)
    assert outcome.status == 0, outcome.err
    assert "same class for" in outcome.out and "validation images" not in outcome.out


def test_all_convolutions_run_on_integers(tmp_path: Path) -> None:
    """ONNX Runtime uses int8 convolutions, although the file has float32 biases."""
    images = calibration().astype(np.float32)
    network = prepared(igcv.fold(randomized("igcv3_d_025"), "group_group"), images)
    (tmp_path / "int8.onnx").write_bytes(
        quantize(onnx_graph(network, torch.from_numpy(images[:1])), images).SerializeToString()
    )
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "optimized.onnx")
    options.log_severity_level = 3  # hides the warning that the optimized file is for this machine only
    onnxruntime.InferenceSession(tmp_path / "int8.onnx", options, providers=["CPUExecutionProvider"])
    kinds = Counter(node.op_type for node in onnx.load(tmp_path / "optimized.onnx").graph.node)
    convolutions = sum(isinstance(layer, nn.Conv2d) for layer in network.modules())
    assert kinds["QLinearConv"] == convolutions and kinds["QGemm"] == 1 and not kinds["Conv"]


@pytest.mark.parametrize(
    ("times", "chosen"),
    [
        ({"dense": 1.0, "group_dense": 1.2, "group_group": 1.3}, "dense"),
        ({"dense": 1.0, "group_dense": 1.05, "group_group": 1.3}, "group_dense"),
        ({"dense": 1.0, "group_dense": 1.05, "group_group": 1.09}, "group_group"),
        ({"dense": 2.0, "group_dense": 1.0, "group_group": 1.2}, "group_dense"),
    ],
)
def test_the_smallest_file_of_the_fast_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, times: dict[str, float], chosen: str
) -> None:
    """The times are artificial, and files with more groups are smaller."""
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path))
    monkeypatch.setattr(choose, "shortest_times", lambda runs: [times[run.args[0]] for run in runs])
    monkeypatch.setattr(choose, "open_session", lambda file, *_: Stand(file.read_text().strip()))
    written = []

    def write(folded: FoldedNetwork, path: Path) -> None:
        form = folded.forms["stages.1.0"]
        written.append(form)
        path.write_text(form + " " * sum(p.numel() for p in folded.parameters()))

    model, images = randomized("igcv3_d_025"), calibration(1)
    plan = choose_int8_plan(model, write, "onnx", images, 1)
    assert set(plan.forms.values()) == {chosen} and written == [*times]
    assert choose_int8_plan(model, write, "onnx", images, 1) == plan and len(written) == 3  # cached
    choose_int8_plan(model, write, "onnx", images, 2)
    assert len(written) == 6


class Stand(NamedTuple):
    """Session that records its form."""

    form: str

    def bind(self, images: np.ndarray) -> Any:
        return partial(str, self.form)


def test_mobilenetv2_has_one_int8_form(tmp_path: Path) -> None:
    """The choice writes no files."""
    write = partial(pytest.fail, "written")
    plan = choose_int8_plan(randomized("mobilenetv2_035_mxnet"), write, "onnx", calibration(1), 1)  # type: ignore[arg-type]
    assert set(plan.forms.values()) == {"dense"}


def test_the_form_of_an_int8_file_is_measured(tmp_path: Path, igcv_command: Igcv) -> None:
    file = tmp_path / "int8.onnx"
    outcome = igcv_command("export", RELEASED, "--out", file, "--int8", "--with-preprocessing", "--json")
    figures = json.loads(outcome.out)
    assert set(figures["forms"].values()) < set(INT8_FORMS)
    assert figures["int8"]["top1"]["int8"] > figures["int8"]["top1"]["float32"] - 1.5
