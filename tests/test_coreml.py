"""Tests of Core ML packages: content, agreement with PyTorch, damage, commands, and invalid input.

Nothing here runs Core ML itself: PyTorch runs the operations that are read back from the packages.
"""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import igcv
from igcv.data.preprocessing import CIFAR
from igcv.data.sources.open import open_source
from igcv.deploy.samples import normalized, sample_pixels
from igcv.deploy.write import write_compared
from igcv.deploy.writers import coreml as writer
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.coreml import READ_BACK, SPEC, WEIGHTS, CoreMlSession
from igcv.errors import InputError
from igcv.weights.card import Card
from tests.conftest import ONE_THREAD, Igcv, randomized

coremltools = pytest.importorskip("coremltools.version", reason="coremltools is not installed")

RELEASED = "igcv3_w_025.digits"
HEADER, BLOCK = bytes.fromhex("efbeadde"), 4096  # first bytes before each weight; bytes to zero


def written(folder: Path, classifier: igcv.Classifier, **settings: Any) -> tuple[Path, Any]:
    """Return a package in a folder, and its comparison with the classifier."""
    file = folder / "network.mlpackage"
    pixels = sample_pixels(None, classifier.preprocessing, 3)
    return file, write_compared(classifier, file, ExportSettings(format="coreml", **settings), pixels)[1]


def with_card(name: str, **values: Any) -> igcv.Classifier:
    """Return a network with random weights, for images of 32 x 32 pixels."""
    model = randomized(name)
    about = {"num_classes": 10, "input_size": 32, "strides": model.strides, "preprocessing": CIFAR.to_dict()}
    return igcv.Classifier(model, Card(model=name, **about, **values))


@pytest.fixture(scope="module")
def package(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a package of the released network for digits."""
    file, _ = written(tmp_path_factory.mktemp("package"), igcv.load(RELEASED), form="group_branches")
    return file


@pytest.mark.parametrize(
    ("name", "form"),
    [
        (RELEASED, "literal"),
        (RELEASED, "partial_sums"),
        (RELEASED, "sources_group"),
        ("mobilenetv2_035", "dense"),
        ("igcv1_l8m4_d20_ident", "literal"),
        ("igcv1_l4m4_imagenet18", "literal"),
        ("igcv2_c64_d20", "literal"),
    ],
)
def test_families_and_forms(name: str, form: str, tmp_path: Path) -> None:
    classifier = igcv.load(name) if name == RELEASED else with_card(name)
    _, found = written(tmp_path, classifier, form=form)
    assert found.error < 1e-4 and found.agreement == 1 and found.images == 3


def test_maximum_as_global_pooling(tmp_path: Path) -> None:
    model = igcv.create_model("mobilenetv2_035_mxnet", 4, input_size=32, global_pool="max").eval()
    card = Card(
        model="mobilenetv2_035_mxnet",
        num_classes=4,
        input_size=32,
        strides=model.strides,
        preprocessing=CIFAR.to_dict(),
    )
    _, found = written(tmp_path, igcv.Classifier(model, card), form="dense")
    assert found.error < 1e-4


@pytest.mark.parametrize("float16", [False, True])
def test_outputs_of_a_package(float16: bool, tmp_path: Path) -> None:
    """The classifier outputs read the probabilities, also where coremltools adds casts behind them."""
    classifier = with_card("igcv2_c64_d20", class_names=tuple("aabcdefghi"), source={"license": "MIT"})
    file, found = written(tmp_path, classifier, form="group_branches", float16=float16)
    assert found.error < (1e-2 if float16 else 1e-4)
    assert sorted(p.name for p in file.rglob("*") if p.is_file()) == [
        "Manifest.json",
        "model.mlmodel",
        "weight.bin",
    ]
    weights = 4 * sum(
        parameter.numel() for parameter in igcv.fold(classifier.model, "group_branches").parameters()
    )
    ratio = (file / WEIGHTS / "weight.bin").stat().st_size / weights
    assert 0.5 * (1 - float16 / 2) < ratio < 1.1 * (1 - float16 / 2)
    spec = igcv_spec(file)
    about = spec.description
    assert [each.name for each in about.input] == ["image"]
    assert about.input[0].type.imageType.width == about.input[0].type.imageType.height == 32
    assert [each.name for each in about.output] == ["classLabel", "classLabel_probs", "logits"]
    assert (about.predictedFeatureName, about.predictedProbabilitiesName) == (
        "classLabel",
        "classLabel_probs",
    )
    assert about.metadata.license == "MIT" and "32 x 32 pixels, 10 classes" in about.metadata.shortDescription
    assert json.loads(about.metadata.userDefined["igcv"])["source"]["export"]["with_preprocessing"]
    program = CoreMlSession(file).program
    assert program is not None
    values = program.run(torch.randint(0, 256, (1, 3, 32, 32)).float())
    torch.testing.assert_close(values["classLabel_probs"], values["logits"].softmax(1))
    names = ["a (0)", "a (1)", *"bcdefghi"]
    assert values["classLabel"] == names[int(values["logits"].argmax())]


def igcv_spec(file: Path) -> Any:
    """Return the specification of a package."""
    from coremltools.proto import Model_pb2

    return Model_pb2.Model.FromString((file / SPEC).read_bytes())


def test_a_package_with_zeroed_weights_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def damaged(*arguments: Any) -> None:
        intact(*arguments)
        file = arguments[2] / WEIGHTS / "weight.bin"
        data = bytearray(file.read_bytes())
        blocks = range(
            len(data) // 2, len(data), 64
        )  # one inside a weight, not across the header of the next one
        start = next(i for i in blocks if HEADER not in data[i : i + BLOCK + 4])
        assert any(data[start : start + BLOCK])
        data[start : start + BLOCK] = bytes(BLOCK)
        file.write_bytes(data)

    intact = writer.write_coreml
    monkeypatch.setattr(writer, "write_coreml", damaged)
    with pytest.raises(InputError, match=r"differs from the network by .* and was deleted"):
        written(tmp_path, igcv.load(RELEASED), form="group_branches")
    assert not list(tmp_path.iterdir())


def test_the_network_of_the_caller_is_unchanged(tmp_path: Path) -> None:
    classifier = with_card("igcv2_c64_d20")
    model = classifier.model.to(memory_format=torch.channels_last)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    _, found = written(tmp_path, classifier, form="literal")
    assert found.error < 1e-4
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert any(p.ndim == 4 and not p.is_contiguous() for p in model.parameters())


def test_batches_and_wrong_images(package: Path) -> None:
    classifier, opened = igcv.load(RELEASED), igcv.load(package)
    pixels = sample_pixels(open_source("digits"), classifier.preprocessing, 3)
    images = torch.from_numpy(normalized(pixels, classifier.preprocessing))
    torch.testing.assert_close(opened.model(images), classifier.model(images).detach(), rtol=1e-3, atol=1e-3)
    session = CoreMlSession.open(package)
    for wrong in (pixels.astype(np.float32), pixels[:, 1:], pixels[:0]):
        with pytest.raises(InputError, match=r"expected uint8 \(N, 16, 16, 3\) with N >= 1"):
            session.bind(wrong)


def test_commands(package: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    out = tmp_path / "digits.mlpackage"
    wrote = igcv_command("export", RELEASED, "--out", out, "--data", "digits")
    assert (wrote.status, wrote.err) == (0, "")
    assert "forms: group_branches 17 blocks" in wrote.out and READ_BACK in wrote.out
    refused = igcv_command("export", RELEASED, "--out", out)
    assert refused.status == 2 and "already exists" in refused.err
    (out / "old").touch()
    again = igcv_command("export", RELEASED, "--out", out, "--data", "digits", "--force", "--json")
    assert again.status == 0 and again.err == f"{READ_BACK}\n" and not (out / "old").exists()
    assert json.loads(again.out)["bytes"] == sum(p.stat().st_size for p in out.rglob("*") if p.is_file())
    assert [*tmp_path.iterdir()] == [out]
    results = [igcv_command("evaluate", what, "--data", "digits", "--json") for what in (RELEASED, out)]
    assert [result.status for result in results] == [0, 0] and READ_BACK in results[1].err
    before, after = (json.loads(result.out) for result in results)
    assert before["images"] == 359 and before["per_class"] == after["per_class"]


def test_standard_error_of_predict(package: Path, digit_folder: Path) -> None:
    """In a process of its own, coremltools would report packages that are missing or newer than it knows."""
    image = next(digit_folder.rglob("*.png"))
    command = [sys.executable, "-m", "igcv", "predict", str(package), str(image), "--json"]
    result = subprocess.run(command, capture_output=True, text=True, env=ONE_THREAD, check=True)
    assert result.stderr == f"{READ_BACK}\n"
    first = json.loads(result.stdout)["predictions"][0]
    ((expected, *_),) = igcv.load(RELEASED).predict(image)
    assert first["class"] == expected.name
    assert first["probability"] == pytest.approx(expected.probability, abs=1e-4)


def test_no_measurements(package: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    message = "igcv cannot measure the engine 'coreml'. Measure the package in Xcode."
    for arguments in (
        ("bench", "latency", package),
        ("bench", "latency", "igcv3_d_025", "--engine", "coreml"),
        ("export", RELEASED, "--out", tmp_path / "a.mlpackage", "--form", "auto"),
    ):
        refused = igcv_command(*arguments)
        assert refused.status == 2 and message in refused.err and refused.err.count("\n") == 1, refused.err
    with pytest.raises(InputError, match="cannot measure"):
        igcv.fold(randomized("igcv3_d_025"), engine="coreml")
    assert not list(tmp_path.iterdir())


def test_bad_places_and_settings(package: Path, tmp_path: Path, igcv_command: Igcv) -> None:
    empty, file, partial = (tmp_path / f"{name}.mlpackage" for name in ("empty", "file", "partial"))
    empty.mkdir()
    file.write_bytes(b"no package")
    for path in package.rglob("*"):
        if path.is_file() and path.name != "weight.bin":
            target = partial / path.relative_to(package)
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(path.read_bytes())
    before = sorted(tmp_path.rglob("*"))
    new = tmp_path / "new.mlpackage"
    for arguments, message in (
        (("evaluate", tmp_path / "none.mlpackage", "--data", "digits"), "file not found"),
        (("evaluate", empty, "--data", "digits"), "engine 'coreml' cannot open"),
        (("evaluate", file, "--data", "digits"), "engine 'coreml' cannot open"),
        (("evaluate", partial, "--data", "digits"), "engine 'coreml' cannot open"),
        (("export", package, "--out", new), "is an exported file"),
        (("export", RELEASED, "--out", empty), "already exists"),
        (("export", RELEASED, "--out", tmp_path / "no" / "a.mlpackage"), "folder not found"),
        (
            ("export", RELEASED, "--out", tmp_path / "a.onnx", "--format", "coreml"),
            "expected the suffix .mlpackage",
        ),
        (("export", RELEASED, "--out", new, "--batch", "2"), "takes one image at a time"),
        (("export", RELEASED, "--out", new, "--int8"), "'coreml' does not support --int8"),
        (("export", RELEASED, "--out", new, "--dynamic-size"), "'coreml' does not support --dynamic-size"),
    ):
        refused = igcv_command(*arguments)
        assert refused.status == 2 and message in refused.err and refused.err.count("\n") == 1, refused.err
        assert refused.out == ""
    assert sorted(tmp_path.rglob("*")) == before
