"""Tests of exported files: content, agreement with the network, and invalid input."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch

import igcv
from igcv.classifier import load
from igcv.data import as_pixels
from igcv.data.preprocessing import CIFAR, IMAGENET, Preprocessing
from igcv.data.sources.open import open_source
from igcv.deploy import write as export_module
from igcv.deploy.compare import Comparison, compare
from igcv.deploy.samples import normalized, sample_pixels
from igcv.deploy.write import write_compared
from igcv.deploy.writers.onnx import onnx_graph
from igcv.deploy.writers.settings import ExportSettings
from igcv.deploy.writers.table import WRITERS
from igcv.engines.onnxruntime import OnnxSession
from igcv.engines.opened import card_of, files_of, open_session
from igcv.engines.table import ENGINES
from igcv.errors import InputError
from igcv.extras import installed
from igcv.weights import save_weights
from igcv.weights.card import Card
from tests.conftest import Igcv, randomized

SUFFIXES = {name: engine.suffix for name, engine in ENGINES.items()}
RELEASED = "igcv3_w_025.digits"  # trained, with half the blocks of `digits_run`


INSIDE = [(name, True) for name, writer in WRITERS.items() if "with_preprocessing" in writer.can]


@pytest.mark.parametrize(("format", "inside"), [*((name, False) for name in WRITERS), *INSIDE])
def test_every_format(tmp_path: Path, format: str, inside: bool) -> None:
    for package in filter(None, (ENGINES[format].package, WRITERS[format].package)):
        if not installed(package):
            pytest.skip(f"{package} is not installed")
    classifier = igcv.load(RELEASED)
    file = tmp_path / f"network{SUFFIXES[format]}"
    pixels = sample_pixels(open_source("digits"), classifier.preprocessing, 5)
    settings = ExportSettings(format=format, form="group_branches", with_preprocessing=inside)
    _, found = write_compared(classifier, file, settings, pixels)
    assert found.images == 5 and found.error < 1e-4 and found.agreement == 1
    assert sorted(tmp_path.iterdir()) == sorted(files_of(file))
    if format == "openvino":  # the conversion precomputes everything that does not depend on the images
        assert not {"ShapeOf", "Broadcast"} & set(re.findall(r'type="(\w+)"', file.read_text()))
    opened = load(file)
    card = opened.card
    assert (card.model, card.class_names) == (classifier.card.model, classifier.card.class_names)
    assert card.source["export"]["forms"]["stages.0.0"] == "group_branches"
    images = torch.from_numpy(normalized(pixels, classifier.preprocessing))
    for count in (1, 3):  # also where the batch size of the file is fixed
        expected = classifier.model(images[:count]).detach()
        torch.testing.assert_close(opened.model(images[:count]), expected, rtol=1e-3, atol=1e-3)


def test_open_height_and_width(tmp_path: Path) -> None:
    model = randomized("igcv3_d_025", input_size=64)
    network = igcv.fold(model, "partial_sums")
    graph = onnx_graph(network, torch.zeros(1, 3, 64, 64), dynamic_size=True)
    images = torch.randn(1, 3, 96, 80)
    found = OnnxSession(graph.SerializeToString(), 1).bind(images.numpy())()
    np.testing.assert_allclose(found, model(images).detach().numpy(), rtol=2e-2, atol=2e-2)


@pytest.mark.parametrize("format", ["openvino", "torch"])
def test_open_height_and_width_in_files(tmp_path: Path, format: str) -> None:
    model = randomized("igcv1_l4m2_d20")
    card = Card(
        model="igcv1_l4m2_d20",
        num_classes=10,
        input_size=32,
        strides=(1, 1, 2, 2),
        preprocessing=CIFAR.to_dict(),
    )
    file = tmp_path / f"network{SUFFIXES[format]}"
    settings = ExportSettings(format=format, form="literal", dynamic_size=True)
    write_compared(igcv.Classifier(model, card), file, settings, sample_pixels(None, CIFAR, 2))
    images = torch.randn(2, 3, 40, 48)
    expected = model(images).detach()
    torch.testing.assert_close(load(file).model(images), expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("opset", [13, 17, 21])
@pytest.mark.parametrize(
    "name", ["igcv3_d_025", "igcv1_l8m4_d20_ident", "igcv1_l4m4_imagenet18", "igcv2_c64_d20"]
)
@pytest.mark.parametrize("form", ["literal", "partial_sums", "group_group", "dense"])
def test_graphs_of_all_families(name: str, form: str, opset: int) -> None:
    model = randomized(name)
    images = torch.randn(2, 3, 32, 32)
    folded = igcv.fold(model, form)
    graph = onnx_graph(folded, images[:1], opset=opset)
    found = OnnxSession(graph.SerializeToString(), 1).bind(images.numpy())()
    expected = model.double()(images.double()).detach().numpy()
    assert np.abs(found - expected).max() < 2e-2 * np.abs(expected).max()
    kinds = {node.op_type for node in graph.graph.node}
    assert ("Reshape" in kinds) == ("literal" in folded.forms.values())


@pytest.mark.parametrize("pooling", ["max", "avg"])
def test_poolings(pooling: str) -> None:
    model = igcv.create_model("mobilenetv2_035_mxnet", 4, input_size=32, global_pool=pooling).eval()
    images = torch.randn(2, 3, 32, 32)
    found = OnnxSession(onnx_graph(igcv.fold(model, "dense"), images).SerializeToString(), 1).bind(
        images.numpy()
    )()
    np.testing.assert_allclose(found, model(images).detach().numpy(), rtol=1e-3, atol=1e-3)


def test_a_pooling_that_cannot_be_written() -> None:
    model = igcv.create_model("igcv3_d_025", 4, input_size=32, global_pool="avgmax").eval()
    with pytest.raises(
        InputError, match=r"the operation 'mul'\. Use a network with global_pool='avg' or 'max'\."
    ):
        onnx_graph(igcv.fold(model, "dense"), torch.zeros(1, 3, 32, 32))


def test_metadata_of_onnx(tmp_path: Path) -> None:
    classifier = igcv.load(RELEASED)
    pixels = sample_pixels(None, classifier.preprocessing, 2)
    write_compared(classifier, tmp_path / "a.onnx", ExportSettings(format="onnx", form="dense"), pixels)
    model = onnx.load(tmp_path / "a.onnx")
    assert model.producer_name == "igcv" and model.opset_import[0].version == 21
    assert model.graph.input[0].type.tensor_type.shape.dim[0].dim_param == "batch"
    assert {node.name for node in model.graph.node} >= {"stem.0", "blocks.0.paths.0.0", "classifier"}
    assert [value.name for value in (*model.graph.input, *model.graph.output)] == ["images", "logits"]
    file = tmp_path / "a.onnx"
    for engine in ("onnx", "openvino"):
        assert card_of(open_session(file, engine), file).results == classifier.card.results


def test_a_file_that_computes_something_else_is_not_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(export_module, "compare", lambda *_: Comparison(1, 0.5, 1e-7, 0.0))
    classifier = igcv.load(RELEASED)
    pixels = sample_pixels(None, classifier.preprocessing, 2)
    with pytest.raises(InputError, match=r"differs from the network by 5.0e-01 .* and was deleted"):
        write_compared(
            classifier, tmp_path / "a.xml", ExportSettings(format="openvino", form="dense"), pixels
        )
    assert not list(tmp_path.iterdir())


def test_comparison_against_hand_written_logits() -> None:
    class Constant(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.value = torch.nn.Parameter(torch.tensor([[1.0, -4.0]]), requires_grad=False)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.value.expand(len(x), 2)

    class Off:
        def __init__(self, *logits: float) -> None:
            self.logits = np.array([logits] * 2, np.float32)

        def bind(self, images: np.ndarray) -> Any:
            return lambda: self.logits

    images = np.zeros((2, 3, 4, 4), np.float32)
    found = compare(Constant(), Off(1.0, -3.0), images)
    assert (found.images, found.error, found.agreement) == (2, 0.25, 1.0)
    assert compare(Constant(), Off(-5.0, -4.0), images).agreement == 0
    assert compare(Constant(), Off(float("nan"), 0.0), images).error == float("inf")
    with pytest.raises(InputError, match=r"logits of the engine: got shape \(2, 3\), expected \(2, 2\)"):
        compare(Constant(), Off(0, 0, 0), images)


@pytest.mark.parametrize("pre", [CIFAR, IMAGENET])
def test_bytes_and_back(pre: Preprocessing) -> None:
    pixels = sample_pixels(None, pre, 3)
    assert pixels.shape == (3, pre.input_size, pre.input_size, 3) and pixels.dtype == np.uint8
    assert np.array_equal(as_pixels(normalized(pixels, pre), pre), pixels)


def test_commands(digits_run: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    file = tmp_path / "a.onnx"
    wrote = igcv_command("export", digits_run, "--out", file, "--form", "dense", "--with-preprocessing")
    assert wrote.status == 0, wrote.err
    assert "16 images of digits" in wrote.out and "forms: dense 32 blocks" in wrote.out
    before, after = (json.loads(igcv_command("evaluate", what, "--json").out) for what in (digits_run, file))
    assert before["images"] == after["images"] == 359
    assert before["per_class"] == after["per_class"]


def test_wrong_input_leaves_no_file(digits_run: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    (tmp_path / "there.onnx").write_text("kept")
    (tmp_path / "folder.onnx").mkdir()
    other = tmp_path / "other.safetensors"
    model = igcv.create_model("igcv3_d_025", 3, input_size=32)
    save_weights(
        other,
        model.state_dict(),
        Card(
            model="igcv3_d_025",
            num_classes=3,
            input_size=32,
            strides=model.strides,
            preprocessing=CIFAR.to_dict(),
        ),
    )
    cases = (
        (
            (digits_run, "--out", tmp_path / "a.engine"),
            f"expected one of {', '.join(SUFFIXES[name] for name in WRITERS)}. Change the file name or give --format.",
        ),
        ((digits_run, "--out", tmp_path / "a.onnx", "--format", "tf"), "unknown format 'tf'"),
        ((digits_run, "--out", tmp_path / "a.onnx", "--format", "openvino"), "expected the suffix .xml"),
        ((digits_run, "--out", tmp_path, "--format", "onnx"), "out: got the folder"),
        ((digits_run, "--out", tmp_path / "folder.onnx", "--force"), "out: got the folder"),
        ((digits_run, "--out", tmp_path / "there.onnx"), "already exists"),
        ((digits_run, "--out", tmp_path / "no" / "a.onnx"), "folder not found"),
        (
            (digits_run, "--out", tmp_path / "a.onnx", "--opset", "9"),
            "opset: got 9, expected an integer from 13",
        ),
        (
            (digits_run, "--out", tmp_path / "a.pt2", "--opset", "18"),
            "the format 'torch' does not support --opset",
        ),
        ((digits_run, "--out", tmp_path / "a.pt2", "--int8"), "the format 'torch' does not support --int8"),
        ((digits_run, "--out", tmp_path / "a.onnx", "--calibrate", "digits"), "--calibrate needs --int8"),
        ((digits_run, "--out", tmp_path / "a.onnx", "--form", "fastest"), "unknown form 'fastest'"),
        ((other, "--out", tmp_path / "a.onnx", "--int8"), "names no training data"),
        (
            (other, "--out", tmp_path / "a.onnx", "--int8", "--calibrate", "digits"),
            "has 10 classes, the network has 3",
        ),
        ((tmp_path / "there.onnx", "--out", tmp_path / "a.onnx"), "is an exported file"),
    )
    before = sorted(tmp_path.iterdir())
    for arguments, message in cases:
        arguments = (*arguments, "--form", "dense") if "--form" not in arguments else arguments
        outcome = igcv_command("export", *arguments)
        assert outcome.status == 2 and message in outcome.err and outcome.err.count("\n") == 1, outcome.err
        assert outcome.out == ""
    assert sorted(tmp_path.iterdir()) == before


def test_a_missing_engine_is_one_line(
    digits_run: Path, tmp_path: Path, igcv_command: Igcv, monkeypatch: Any
) -> None:
    monkeypatch.setattr("igcv.extras.find_spec", lambda name: None)
    outcome = igcv_command("export", digits_run, "--out", tmp_path / "a.onnx")
    assert outcome.status == 2
    assert "needs the package onnxruntime, which is not installed: pip install 'igcv[deploy]'" in outcome.err


def test_damaged_and_foreign_files(tmp_path: Path, igcv_command: Igcv) -> None:
    damaged, foreign = tmp_path / "damaged.onnx", tmp_path / "foreign.onnx"
    damaged.write_bytes(b"no graph")
    onnx.save(onnx_graph(igcv.fold(randomized("igcv3_d_025"), "dense"), torch.zeros(1, 3, 32, 32)), foreign)
    for file, message in (
        (damaged, "engine 'onnx' cannot open"),
        (foreign, "has no igcv card"),
        (tmp_path / "none.onnx", "file not found"),
    ):
        outcome = igcv_command("evaluate", file, "--data", "digits")
        assert outcome.status == 2 and message in outcome.err, outcome.err
