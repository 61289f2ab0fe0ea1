"""Tests of the conversion of files of pytorchcv, torchvision and timm, and of its errors."""

import pickle
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torchvision
from pytorchcv.model_provider import get_model
from safetensors.torch import save_file
from torch import nn

import igcv
from igcv.models import build_model
from igcv.weights.foreign.torch_files import read_state
from igcv.weights.foreign.torch_names import EXAMPLES, PROJECTS, names_in
from igcv.weights.known import KNOWN
from tests.conftest import Igcv, randomize
from tests.weights_server import project_model, published, zipped


def small_timm() -> nn.Module:
    torch.manual_seed(0)
    return randomize(timm.create_model("mobilenetv2_035", num_classes=3))


def save(model: nn.Module, file: Path) -> Path:
    torch.save(model.state_dict(), file)
    return file


def same_logits(file: Path, model: nn.Module) -> bool:
    images = torch.randn(2, 3, 224, 224, dtype=torch.float64)
    with torch.inference_mode():
        ours, theirs = igcv.from_torch(file).model.double()(images), model.double().eval()(images)
    return bool((ours - theirs).abs().max() <= 2e-15 * theirs.abs().max())


@pytest.mark.parametrize("example", EXAMPLES)
@pytest.mark.parametrize("project", PROJECTS)
def test_names_are_two_way(project: str, example: str) -> None:
    with torch.device("meta"):
        ours = build_model(example).state_dict()
    theirs = names_in(project, ours)
    assert list(theirs) == list(ours) and len(set(theirs.values())) == len(ours)


def test_names_are_those_of_the_projects() -> None:
    with torch.device("meta"):
        pairs = {
            ("pytorchcv", "igcv3_d_100"): get_model("igcv3_w1"),
            ("torchvision", "mobilenetv2_100"): torchvision.models.mobilenet_v2(),
            ("timm", "mobilenetv2_100"): timm.create_model("mobilenetv2_100"),
        }
        for (project, name), model in pairs.items():
            ours, theirs = build_model(name).state_dict(), model.state_dict()
            assert list(names_in(project, ours).values()) == list(theirs)


@pytest.mark.parametrize("kind", ["pth", "safetensors", "checkpoint", "half", "without counters"])
def test_kinds_of_files(kind: str, tmp_path: Path) -> None:
    """The reader takes training checkpoints of timm, DataParallel, and files without batch counters."""
    model = small_timm()
    if kind == "half":
        model = model.half()
    state = dict(model.state_dict())
    file = tmp_path / "weights.pth"
    if kind == "safetensors":
        file = file.with_suffix(".safetensors")
        save_file(state, file)
    elif kind == "checkpoint":
        wrapped = {f"module.{name}": tensor for name, tensor in state.items()}
        torch.save({"epoch": 3, "state_dict": {"nothing": 1}, "state_dict_ema": wrapped}, file)
    elif kind == "without counters":
        torch.save({name: t for name, t in state.items() if "num_batches" not in name}, file)
    else:
        torch.save(state, file)
    converted = igcv.from_torch(file)
    assert same_logits(file, model)
    assert (converted.card.model, converted.card.num_classes) == ("mobilenetv2_035", 3)
    assert converted.preprocessing.interpolation == "bicubic" and not converted.card.class_names


def test_convert(tmp_path: Path, igcv_command: Igcv) -> None:
    model = randomize(torchvision.models.mobilenet_v2(num_classes=4, width_mult=0.5))
    file, out = save(model, tmp_path / "vision.pth"), tmp_path / "out.safetensors"
    done = igcv_command("convert", file, out)
    assert done.status == 0, done.err
    assert "mobilenetv2_050, 4 classes" in done.out
    assert "no class names: predictions show class numbers" in done.out
    loaded = igcv.load(out)
    assert loaded.preprocessing.interpolation == "bilinear" and loaded.card.source["format"] == "torchvision"
    assert igcv_command("convert", file, out).status == 2
    sized = igcv_command("convert", file, out, "--input-size", 32, "--force")
    assert sized.status == 0 and "32 x 32 pixels" in sized.out
    refused = igcv_command("predict", file, "photo.jpg").err
    assert "is a PyTorch checkpoint" in refused and f"igcv convert {file} OUT.safetensors" in refused


@pytest.mark.parametrize("archived", [True, False])
def test_a_file_with_a_name_is_known(archived: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "igcv3_d_025.imagenet"
    model = project_model(name)
    row, content = published(name, model, tmp_path)
    monkeypatch.setitem(KNOWN, name, row)
    file = tmp_path / row.file
    file.write_bytes(content)
    if not archived:
        with zipfile.ZipFile(file) as archive:
            file = Path(archive.extract(archive.namelist()[0], tmp_path))
    found = igcv.from_torch(file)
    assert (found.card.class_names[0], found.preprocessing) == ("tench", row.preprocessing)
    assert same_logits(file, model)


def test_the_original_file_is_known(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = "igcv3_d_100.imagenet_original"
    row, content = published(name, project_model(name), tmp_path)
    monkeypatch.setitem(KNOWN, name, row)
    (tmp_path / "mine.params").write_bytes(content)
    card = igcv.from_mxnet(tmp_path / "mine.params", input_size=160).card
    assert (card.class_ids[0], card.preprocessing["input_size"]) == ("n01440764", 160)


def test_both_lists_of_names(tmp_path: Path) -> None:
    model = small_timm()
    state = model.state_dict()
    state["blocks.1.0.conv_extra.weight"] = state.pop("blocks.1.0.conv_dw.weight")
    torch.save(state, tmp_path / "a.pth")
    expected = r"missing: blocks\.1\.0\.conv_dw\.weight; unexpected: blocks\.1\.0\.conv_extra\.weight"
    with pytest.raises(igcv.InputError, match=expected):
        igcv.from_torch(tmp_path / "a.pth")


def test_another_network(tmp_path: Path) -> None:
    with torch.device("meta"):
        names = torchvision.models.resnet18().state_dict()
    torch.save(dict.fromkeys(names, torch.ones(1)), tmp_path / "a.pth")
    with pytest.raises(
        igcv.InputError, match=r"got bn1\.bias, .*, expected an IGCV3 or MobileNetV2 of pytorchcv"
    ):
        igcv.from_torch(tmp_path / "a.pth")
    state = small_timm().state_dict()
    state["conv_head.weight"] = torch.ones(1000, 112, 1, 1)
    torch.save(state, tmp_path / "b.pth")
    with pytest.raises(
        igcv.InputError, match=r"no igcv network matches these tensors; the similar mobilenetv2_.*conv_head"
    ):
        igcv.from_torch(tmp_path / "b.pth")
    with pytest.raises(igcv.InputError, match=r"missing: output\.bias"):  # the classifier is a convolution
        igcv.from_torch(save(get_model("mobilenetv2_wd4"), tmp_path / "c.pth"))


@pytest.mark.parametrize(
    "content, message",
    [
        ([torch.ones(1)], "got list, expected tensors by name"),
        ({}, "got dict, expected tensors by name"),
        ({"a": 1}, "'a': got int, expected tensors by name"),
        ({1: torch.ones(1)}, "1: got Tensor, expected tensors by name"),
        ({"a": torch.ones(1, dtype=torch.complex64)}, "a: got another kind of tensor"),
        ({"a": torch.ones(2, 2).to_sparse()}, "a: got another kind of tensor"),
        ({"a": torch.ones(1), "module.a": torch.ones(1)}, "has some tensors twice"),
    ],
)
def test_other_contents(content: object, message: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "a.pth")
    with pytest.raises(igcv.InputError, match=message):
        read_state(tmp_path / "a.pth")


def test_damaged_and_hostile_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = save(small_timm(), tmp_path / "whole.pth").read_bytes()
    file = tmp_path / "a.pth"
    hostile = [b"", b"\x80", b"PK\x03\x04", whole[:1000], whole[: len(whole) // 2], whole[:-30]]
    hostile += [pickle.dumps(print), pickle.dumps([1, 2]), b"<html></html>"]
    for content in hostile:
        file.write_bytes(content)
        with pytest.raises(igcv.InputError, match=r"is not a readable torch\.save file of tensors"):
            igcv.from_torch(file)
    monkeypatch.setattr("igcv.weights.foreign.torch_files.MAX_BYTES", 10**6)
    file.write_bytes(zipped({"archive/data/0": bytes(10**6 + 1)}))  # compressed to a thousandth
    with pytest.raises(igcv.InputError, match="exceeds 1 MB, more than any network of igcv"):
        igcv.from_torch(file)
    with pytest.raises(igcv.InputError, match="file not found"):
        igcv.from_torch(tmp_path / "none.pth")


@pytest.mark.parametrize("as_archive", [True, False])
def test_changed_bytes(as_archive: bool, tmp_path: Path) -> None:
    """The reader loads or rejects any file."""
    file, rng = tmp_path / "a.pth", np.random.default_rng(0)
    torch.save(
        {f"layer{i}": torch.ones(3, i) for i in range(4)}, file, _use_new_zipfile_serialization=as_archive
    )
    whole, refused = file.read_bytes(), 0
    for _ in range(300):
        changed = bytearray(whole)
        for at in rng.integers(0, len(whole), rng.integers(1, 4)):
            changed[at] = rng.integers(0, 256)
        file.write_bytes(changed)
        try:
            read_state(file)
        except igcv.InputError:
            refused += 1
    assert refused > 50


@pytest.mark.parametrize(
    "source, target, more, message",
    [
        ("a.onnx", "b.safetensors", {}, "cannot convert 'a.onnx' to 'b.safetensors'. Give X.params, X.pth"),
        ("a.pth", "b.onnx", {}, "cannot convert 'a.pth' to 'b.onnx'. Give"),
        ("a.pth", "b.safetensors", {"symbol": "c.json"}, "--symbol is only for conversion from MXNet"),
        (
            "igcv3_w_025.digits",
            "b.safetensors",
            {"input_size": 9},
            "--input-size and --strides are only for checkp",
        ),
    ],
)
def test_directions(source: str, target: str, more: dict[str, Any], message: str) -> None:
    with pytest.raises(igcv.InputError, match=message):
        igcv.convert(source, target, **more)


def test_weights_of_igcv_are_converted_already(tmp_path: Path) -> None:
    igcv.convert("igcv3_w_025.digits", tmp_path / "a.safetensors")
    with pytest.raises(igcv.InputError, match="already has weights of igcv"):
        igcv.convert(tmp_path / "a.safetensors", tmp_path / "b.safetensors")
