"""Folders for timm and the Hugging Face Hub, written by `igcv convert`."""

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import timm
import torch

import igcv
from igcv.weights import hub
from igcv.weights.card import Card
from igcv.weights.files import read_metadata, save_weights
from tests.conftest import Igcv, randomized
from tests.page_commands import run_program

WEIGHTS = "igcv3_d_p50.cifar10"


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of released weights."""
    out = tmp_path_factory.mktemp("hub") / "cifar"
    igcv.convert(WEIGHTS, out)
    return out


def opens_the_same(folder: Path, network: torch.nn.Module, size: int) -> bool:
    """Return whether timm opens a folder as a network with the same tensors and outputs."""
    opened = timm.create_model(f"local-dir:{folder}", pretrained=True).eval()
    images = torch.randn(2, 3, size, size)
    with torch.inference_mode():
        torch.testing.assert_close(opened(images), network(images))
    return all(torch.equal(tensor, opened.state_dict()[key]) for key, tensor in network.state_dict().items())


def test_timm_opens_the_folder(folder: Path) -> None:
    trained = igcv.load(WEIGHTS)
    assert {path.name for path in folder.iterdir()} == hub.FILES
    assert opens_the_same(folder, trained.model, 32)
    source = f"local-dir:{folder}"
    assert timm.create_model(source, pretrained=True, num_classes=3)(torch.zeros(1, 3, 32, 32)).shape == (
        1,
        3,
    )
    body = timm.create_model(source, pretrained=True, features_only=True)
    assert [level.shape[-1] for level in body(torch.zeros(1, 3, 32, 32))] == [32, 16, 8]
    config = timm.data.resolve_data_config(model=timm.create_model(source))
    expected = trained.preprocessing
    assert tuple(config["input_size"]) == (3, 32, 32) and config["crop_pct"] == expected.crop
    assert tuple(config["mean"]) == expected.mean and config["interpolation"] == expected.interpolation


def test_a_new_process_needs_igcv(folder: Path) -> None:
    words = f"import timm; print(timm.create_model('local-dir:{folder}', pretrained=True).num_classes)"
    assert run_program([sys.executable, "-c", f"import igcv; {words}"]).strip() == "10"


def test_igcv_opens_the_folder(folder: Path) -> None:
    opened, trained = igcv.load(folder), igcv.load(WEIGHTS)
    assert opened.card == replace(trained.card, recipe={})
    assert read_metadata(folder / hub.WEIGHTS)["format"] == "pt"


def test_model_card_and_config(folder: Path) -> None:
    text = (folder / hub.README).read_text()
    assert text.startswith(
        "---\ntags: [image-classification, timm, igcv]\npipeline_tag: image-classification\n"
    )
    assert "top-1 93.01 % of 10,000 images of cifar10" in text and "\nlicense:" not in text
    config = json.loads((folder / hub.CONFIG).read_text())
    assert config["label_names"] == list(igcv.load(WEIGHTS).class_names)
    assert config["model_args"] == {"input_size": 32, "strides": [1, 1, 1, 2, 2, 1, 1, 1]}


@pytest.mark.usefixtures("known")
def test_downloaded_weights_keep_license_and_synsets(tmp_path: Path) -> None:
    igcv.convert("igcv3_d_025.imagenet", tmp_path / "imagenet")
    assert "\nlicense: mit\n---\n" in (tmp_path / "imagenet" / hub.README).read_text()
    config = json.loads((tmp_path / "imagenet" / hub.CONFIG).read_text())
    assert config["pretrained_cfg"]["license"] == "mit"
    assert config["label_names"][7] == "n01514668" and config["label_descriptions"]["n01514668"] == "cock"


def weights_of(name: str, tmp_path: Path, **more: object) -> Path:
    """Return a weights file of a random network."""
    network = randomized(name, input_size=64)
    card = Card(model=name, num_classes=10, input_size=64, strides=network.strides, **more)  # type: ignore[arg-type]
    images = {
        "input_size": 64,
        "mean": [0.5] * 3,
        "std": [0.25] * 3,
        "crop": 0.9,
        "interpolation": "bilinear",
    }
    save_weights(tmp_path / f"{name}.safetensors", network.state_dict(), replace(card, preprocessing=images))
    return tmp_path / f"{name}.safetensors"


@pytest.mark.parametrize(
    "name", ["igcv1_l24m2_d20", "igcv2_c416_d20", "igcv3_g2g4_100", "mobilenetv2_100_mxnet"]
)
def test_each_family(name: str, tmp_path: Path, igcv_command: Igcv) -> None:
    file = weights_of(name, tmp_path)
    outcome = igcv_command("convert", file, f"{tmp_path}/out.v1/")
    assert outcome.status == 0 and f"{name}, 10 classes" in outcome.out, outcome.err
    assert opens_the_same(tmp_path / "out.v1", igcv.load(file).model, 64)


def test_a_run_loses_its_paths_and_is_replaced_by_force(
    digits_run: Path, tmp_path: Path, igcv_command: Igcv
) -> None:
    out = tmp_path / "digits"
    assert igcv_command("convert", digits_run, out).status == 0
    assert igcv.load(out).card.recipe == {} and igcv.load(digits_run).card.recipe
    again = igcv_command("convert", digits_run, out)
    assert (
        again.status == 2
        and "already contains a network for timm. Choose another folder, or give --force" in again.err
    )
    (out / hub.CONFIG).write_text("{}")
    assert igcv_command("convert", digits_run, out, "--force").status == 0
    assert opens_the_same(out, igcv.load(digits_run).model, 32)
    (out / "mine.txt").touch()
    refused = igcv_command("convert", digits_run, out, "--force")
    assert refused.status == 2 and "contains other files than a network for timm" in refused.err


@pytest.mark.parametrize("name", ["mobilenetv2_035", "igcv3_d_060"])
def test_names_that_timm_does_not_know(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        igcv.InputError, match=f"'{name}': got a network that igcv does not register with timm"
    ):
        igcv.convert(weights_of(name, tmp_path), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_another_network_in_timm_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = timm.create_model

    def other(*arguments: object, **options: object) -> torch.nn.Module:
        network = real(*arguments, **options)
        network.classifier.bias.data += 1
        return network

    monkeypatch.setattr(timm, "create_model", other)
    with pytest.raises(igcv.InputError, match="opens another network than was written"):
        igcv.convert(WEIGHTS, tmp_path / "out")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "source, options, message",
    [
        ("runs/none", {}, "file not found: 'runs/none'"),
        ("network.onnx", {}, "is an exported file"),
        (WEIGHTS, {"input_size": 64}, "--input-size and --strides are only for checkpoints"),
        (WEIGHTS, {"symbol": "a.json"}, "--symbol is only for conversion from MXNet"),
    ],
)
def test_wrong_input(source: str, options: dict[str, object], message: str, tmp_path: Path) -> None:
    with pytest.raises(igcv.InputError, match=message):
        igcv.convert(source, tmp_path / "out", **options)  # type: ignore[arg-type]
