"""Tests of LiteRT and ncnn files: content, agreement with PyTorch in every form, float16, and invalid input."""

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import igcv
from igcv.data.preprocessing import CIFAR
from igcv.deploy.folding.forms import FORMS, LITERAL
from igcv.deploy.folding.network import ChannelShuffle
from igcv.deploy.samples import normalized, sample_pixels
from igcv.deploy.write import rounded
from igcv.deploy.writers import litert, ncnn, onnx
from igcv.deploy.writers.graph import KINDS, fused, graph_of
from igcv.deploy.writers.session import session_of
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.opened import files_of, open_session
from igcv.errors import InputError
from tests.conftest import Igcv, randomized

WEIGHTS = "igcv3_w_025.digits"
SUFFIXES = {"litert": ".tflite", "ncnn": ".param"}
NETWORKS = ("igcv1_l4m2_d20", "igcv2_c416_d20", "mobilenetv2_025", "igcv3_w_025")


def images_of(count: int, size: int = 32) -> torch.Tensor:
    """Return normalized photographs, (N, 3, S, S)."""
    pre = CIFAR if size == 32 else CIFAR.__class__(**{**CIFAR.to_dict(), "input_size": size})
    return torch.from_numpy(normalized(sample_pixels(None, pre, count), pre))


@pytest.mark.parametrize("engine", SUFFIXES)
@pytest.mark.parametrize("name", NETWORKS)
def test_every_form_agrees(engine: str, name: str) -> None:
    """Twenty times PyTorch's own float32 error, and at least 1e-4 of the largest logit: the tolerance of exports."""
    model, images = randomized(name, 10, 32), images_of(3)
    with torch.no_grad():
        plain = model(images).numpy()
        exact = model.double()(images.double()).numpy()
    scale = np.abs(exact).max()
    limit = max(1e-4, 20 * np.abs(plain - exact).max() / scale)
    for form in (LITERAL, *FORMS):
        session = session_of(igcv.fold(model.float(), form), images[:1], engine, 1)
        assert np.abs(session.bind(images.numpy())() - exact).max() / scale < limit, form


def test_every_writer_knows_every_operation() -> None:
    """A new operation needs a row in each table. ncnn has no uint8 input, and activations may be fused."""
    kinds = set(KINDS.values()) - {"identity"}
    assert set(onnx.OPERATIONS) == kinds
    assert set(litert.OPERATIONS) == kinds
    assert set(ncnn.OPERATIONS) == kinds - {"preprocess"}


def test_activations_are_fused_where_nobody_else_reads() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.other = nn.Conv2d(3, 4, 1), nn.ReLU6(), nn.ReLU()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.conv(x)
            return self.act(y) + self.other(self.act(y))

    graph = fused(graph_of(Twice().eval(), torch.zeros(1, 3, 2, 2)), ("conv", "add"))
    assert [(op.kind, op.activation) for op in graph.operations] == [
        *(("conv", ""), ("relu6", ""), ("relu6", ""), ("relu", ""), ("add", "")),
    ]
    network = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU6()).eval()
    (only,) = fused(graph_of(network, torch.zeros(1, 3, 2, 2)), ("conv",)).operations
    assert (only.kind, only.activation, only.outputs) == ("conv", "relu6", ("logits",))


def test_a_param_file_against_hand_written_lines(tmp_path: Path) -> None:
    """Bounds of activations are floats, and a blob with two readers passes through a Split."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.act, self.shuffle = (
                nn.Conv2d(4, 4, 3, 2, 1, groups=2),
                nn.ReLU6(),
                ChannelShuffle(4, 2),
            )

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            y = self.act(self.conv(x))
            return y + self.shuffle(y)

    network = Small().eval()
    ncnn.write_ncnn(network, torch.zeros(1, 4, 8, 8), tmp_path / "a.param", ExportSettings(format="ncnn"), {})
    assert (tmp_path / "a.param").read_text().splitlines() == [
        "7767517",
        "5 6",
        "Input images 0 1 images",
        "ConvolutionDepthWise conv 1 1 images act 0=4 1=3 3=2 4=1 5=1 6=72 7=2 9=3 -23310=2,0.0,6.0",
        "Split act.split 1 2 act act.copy0 act.copy1",
        "ShuffleChannel shuffle 1 1 act.copy0 shuffle 0=2",
        "BinaryOp add 2 1 act.copy1 shuffle logits 0=0",
    ]
    written = np.frombuffer((tmp_path / "a.bin").read_bytes(), np.float32)
    expected = [np.zeros(1), network.conv.weight.detach().flatten(), network.conv.bias.detach()]
    np.testing.assert_array_equal(written, np.concatenate(expected).astype(np.float32))


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("form", [LITERAL, "group_branches", "sources_group", "partial_sums", "group_group"])
def test_litert_runs_a_file_as_one_delegate(form: str, inside: bool, tmp_path: Path) -> None:
    """From the images to the logits; only the conversion of uint8 images runs before it."""
    igcv.export(WEIGHTS, tmp_path / "a.tflite", form=form, with_preprocessing=inside)
    session: Any = open_session(tmp_path / "a.tflite")
    operations = session.interpreter._get_ops_details()
    (delegate,) = (operation for operation in operations if operation["op_name"] == "DELEGATE")
    first = operations[0]["outputs"][0] if inside else session.given["index"]
    assert operations[0]["op_name"] == "CAST" or not inside
    assert first in delegate["inputs"] and session.found["index"] in delegate["outputs"]


def test_card_and_labels_in_a_litert_file(tmp_path: Path) -> None:
    file = tmp_path / "a.tflite"
    igcv.export(WEIGHTS, file)
    with zipfile.ZipFile(file) as archive:
        assert archive.read("labels.txt").decode().splitlines() == [str(i) for i in range(10)]
        assert json.loads(archive.read("igcv.json"))["model"] == "igcv3_w_025"
    assert igcv.load(file).card.source["export"]["forms"]["stages.0.0"] == "sources_group"


def test_what_a_program_for_ncnn_needs(tmp_path: Path) -> None:
    file = tmp_path / "a.param"
    igcv.export(WEIGHTS, file)
    about = json.loads(file.with_suffix(".json").read_text())
    pre = igcv.load(file).preprocessing
    assert about["mean"] == pytest.approx([255 * value for value in pre.mean])
    assert [1 / value for value in about["norm"]] == pytest.approx([255 * value for value in pre.std])
    assert about["classes"] == [str(i) for i in range(10)] and about["shape"] == [3, 16, 16]
    assert sorted(tmp_path.iterdir()) == sorted(files_of(file))


@pytest.mark.parametrize("format", SUFFIXES)
def test_float16(format: str, tmp_path: Path) -> None:
    """The engine computes in float32 with rounded weights: the same as PyTorch with rounded weights."""
    whole, half = (tmp_path / f"{name}{SUFFIXES[format]}" for name in ("whole", "half"))
    sizes = [igcv.export(WEIGHTS, file, float16=file is half).bytes for file in (whole, half)]
    assert sizes[1] < 0.65 * sizes[0]
    trained = igcv.load(WEIGHTS)
    images = torch.from_numpy(
        normalized(sample_pixels(None, trained.preprocessing, 3), trained.preprocessing)
    )
    folded = igcv.fold(trained.model, "dense")
    found, expected = igcv.load(half).model(images), rounded(folded)(images)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert (found - folded(images)).abs().max() > 1e-4  # the rounding is visible


@pytest.mark.parametrize("format", SUFFIXES)
def test_commands(format: str, tmp_path: Path, igcv_command: Igcv) -> None:
    file = tmp_path / f"a{SUFFIXES[format]}"
    wrote = igcv_command("export", WEIGHTS, "--out", file, "--data", "digits")
    assert wrote.status == 0, wrote.err
    assert wrote.err == ""
    before, after = (json.loads(igcv_command("evaluate", what, "--json").out) for what in (WEIGHTS, file))
    assert before["per_class"] == after["per_class"]
    timed = igcv_command(
        "bench", "latency", file, "igcv3_w_025", "--engine", format, "--form", "dense", "--rounds", "1"
    )
    assert timed.status == 0, timed.err


def test_a_fixed_batch(tmp_path: Path) -> None:
    file = tmp_path / "a.tflite"
    igcv.export(WEIGHTS, file, batch_size=4)
    trained, opened = igcv.load(WEIGHTS), igcv.load(file)
    images = torch.randn(6, 3, 16, 16)
    torch.testing.assert_close(opened.model(images), trained.model(images), rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("format", SUFFIXES)
@pytest.mark.parametrize(
    "images",
    [
        np.zeros((1, 3, 16, 16)),
        np.zeros((1, 3, 17, 16), np.float32),
        np.zeros((1, 16, 16, 3), np.float32),
        np.zeros((3, 16, 16), np.float32),
        np.zeros((0, 3, 16, 16), np.float32),
        np.zeros((1, 3, 16, 16), np.uint8),
    ],
    ids=["float64", "size", "order", "no batch", "empty", "uint8"],
)
def test_arrays_that_an_engine_would_misread(format: str, images: np.ndarray, tmp_path: Path) -> None:
    file = tmp_path / f"a{SUFFIXES[format]}"
    igcv.export(WEIGHTS, file)
    with pytest.raises(InputError, match=r"images: got .*, expected float32 \(N, 3, 16, 16\) with N >= 1"):
        open_session(file).bind(images)


def test_strided_arrays(tmp_path: Path) -> None:
    """Views in another memory order are read correctly."""
    images = np.random.default_rng(0).standard_normal((2, 16, 16, 3)).astype(np.float32).transpose(0, 3, 1, 2)
    expected = igcv.load(WEIGHTS).model(torch.from_numpy(images.copy())).detach().numpy()
    for suffix in SUFFIXES.values():
        igcv.export(WEIGHTS, tmp_path / f"a{suffix}")
        found = open_session(tmp_path / f"a{suffix}").bind(images)()
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize(
    "out, options, message",
    [
        (
            "a.param",
            ["--with-preprocessing"],
            "'ncnn' does not support --with-preprocessing. Normalize the images",
        ),
        (
            "a.param",
            ["--batch", "2"],
            "batch: got 2, but a file of the format 'ncnn' takes one image at a time",
        ),
        ("a.param", ["--dynamic-size"], "'ncnn' does not support --dynamic-size"),
        (
            "a.tflite",
            ["--dynamic-size"],
            "'litert' does not support --dynamic-size. Omit it, or give --format",
        ),
        ("a.tflite", ["--int8"], "'litert' does not support --int8"),
        ("a.tflite", ["--opset", "18"], "'litert' does not support --opset"),
        ("a.onnx", ["--float16"], "'onnx' does not support --float16"),
        ("no/a.tflite", [], "folder not found"),
        ("a.tflite", ["--form", "fastest"], "unknown form 'fastest'"),
    ],
)
def test_one_line_and_no_file(
    out: str, options: list[str], message: str, tmp_path: Path, igcv_command: Igcv
) -> None:
    outcome = igcv_command("export", WEIGHTS, "--out", tmp_path / out, *options)
    assert (outcome.status, outcome.out) == (2, "")
    assert message in outcome.err and outcome.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("format", SUFFIXES)
def test_a_file_that_is_none(format: str, tmp_path: Path, igcv_command: Igcv) -> None:
    file = tmp_path / f"a{SUFFIXES[format]}"
    file.write_text("nothing")
    outcome = igcv_command("evaluate", file)
    assert outcome.status == 2 and "Export it again" in outcome.err and outcome.err.count("\n") == 1


def test_a_param_file_without_its_weights(tmp_path: Path, igcv_command: Igcv) -> None:
    file = tmp_path / "a.param"
    igcv.export(WEIGHTS, file)
    file.with_suffix(".bin").unlink()
    outcome = igcv_command("evaluate", file)
    assert outcome.status == 2 and "a.bin" in outcome.err and outcome.err.count("\n") == 1
