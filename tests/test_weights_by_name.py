"""Tests of weights of other projects by name: download from a local server, checksum, conversion, cache and use."""

import csv
import importlib.resources
import json
import os
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from torch import nn
from torchvision.models import MobileNet_V2_Weights

import igcv
from igcv.deploy.latency import is_name
from igcv.models import build_model
from igcv.training.facts import Facts, start_for
from igcv.weights import download, list_weights, load_weights
from igcv.weights.known import KNOWN
from igcv.weights.pretrained import cached_file, find_weights, imagenet_classes, weights_path
from tests.conftest import Igcv
from tests.weights_server import MODELS, SMALL, Published, left, put

# The table


def test_the_rows_of_pytorchcv() -> None:
    table = importlib.resources.files("pytorchcv.models.common") / "model_metainfos.csv"
    rows = {row[0]: row for row in csv.reader(table.read_text().splitlines())}
    for name, theirs in (("025", "wd4"), ("050", "wd2"), ("075", "w3d4"), ("100", "w1")):
        _, _, error, sha1, tag, _, _, data, size, crop, *_ = rows[f"igcv3_{theirs}"]
        row, images = KNOWN[f"igcv3_d_{name}.imagenet"], KNOWN[f"igcv3_d_{name}.imagenet"].preprocessing
        assert row.url == (
            f"https://github.com/osmr/imgclsmob/releases/download/{tag}/igcv3_{theirs}-{error}-{sha1[:8]}.pth.zip"
        )
        assert (row.checksum, data) == (f"sha1:{sha1}", "in1k")
        assert row.top5 == pytest.approx(100 - int(error) / 100)
        assert (images.input_size, images.crop) == (int(size), float(crop))


def test_the_rows_of_timm() -> None:
    for width in ("050", "100", "140"):
        row, config = KNOWN[f"mobilenetv2_{width}.imagenet"], timm.get_pretrained_cfg(f"mobilenetv2_{width}")
        images = row.preprocessing
        assert row.url == config.url
        assert row.checksum == f"sha256:{config.url[-12:-4]}"
        assert (images.input_size, images.crop, images.interpolation) == (
            config.input_size[1],
            config.crop_pct,
            config.interpolation,
        )
        assert (images.mean, images.std, row.license.lower()) == (config.mean, config.std, config.license)


@pytest.mark.parametrize("version, name", [("V1", "imagenet_torchvision"), ("V2", "imagenet_torchvision_v2")])
def test_the_rows_of_torchvision(version: str, name: str) -> None:
    theirs, row = MobileNet_V2_Weights[f"IMAGENET1K_{version}"], KNOWN[f"mobilenetv2_100.{name}"]
    images, crop = row.preprocessing, theirs.transforms()
    assert (row.url, row.checksum) == (theirs.url, f"sha256:{theirs.url[-12:-4]}")
    assert [images.input_size, round(images.input_size / images.crop)] == [*crop.crop_size, *crop.resize_size]
    assert (list(images.mean), list(images.std)) == (crop.mean, crop.std)
    assert images.interpolation == crop.interpolation.value
    found = theirs.meta["_metrics"]["ImageNet-1K"]
    assert (row.top1, row.top5) == pytest.approx((found["acc@1"], found["acc@5"]), abs=0.005)


@pytest.mark.parametrize("name", KNOWN)
def test_sizes(name: str) -> None:
    with torch.device("meta"):
        parameters = sum(p.numel() for p in build_model(name.partition(".")[0]).parameters())
    assert KNOWN[name].megabytes == pytest.approx(4 * parameters / 1e6, rel=0.02)


@pytest.mark.parametrize("name", KNOWN)
def test_the_page_has_the_row(name: str) -> None:
    page, row = (Path(__file__).parents[1] / "docs" / "weights.md").read_text(), KNOWN[name]
    line = next(line for line in page.splitlines() if line.startswith(f"| `{name}` |"))
    assert line.startswith(f"| `{name}` | {row.top1:.2f} / {row.top5:.2f} | {row.megabytes:.1f} MB | ")
    assert line.endswith(f" | {row.license} |")


def test_the_classes_of_imagenet() -> None:
    names, ids = imagenet_classes()
    theirs = MobileNet_V2_Weights.IMAGENET1K_V1.meta["categories"]
    assert len(names) == len(set(names)) == len(set(ids)) == 1000
    assert sum(ours == name for ours, name in zip(names, theirs, strict=True)) >= 996
    assert (names[0], ids[0], names[134]) == ("tench", "n01440764", "crane (n02012849)")


# Download, conversion, cache


@pytest.mark.parametrize("name", MODELS)
def test_logits_are_those_of_the_project(
    name: str, site: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = put(name, site, tmp_path, monkeypatch).double()
    loaded = igcv.load(name)
    images = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    with torch.inference_mode():
        theirs, ours = model(images), loaded.model.double()(images)
    assert (ours - theirs).abs().max() <= 2e-15 * theirs.abs().max()
    card, row = loaded.card, KNOWN[name]
    assert card.model == name.partition(".")[0]
    assert loaded.preprocessing == row.preprocessing
    assert (card.class_names[0], card.class_ids[0], card.num_classes) == ("tench", "n01440764", 1000)
    assert (card.source["url"], card.source["license"]) == (row.url, row.license)
    assert card.source["published"]["top1"] == row.top1


def test_downloaded_once(
    known: nn.Module,
    site: Published,
    capfd: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = igcv.load(SMALL).model.state_dict()
    said = capfd.readouterr()
    assert f"downloading {SMALL}: 6.1 MB from {site.url}/osmr/imgclsmob/" in said.err and not said.out
    monkeypatch.setenv("IGCV_OFFLINE", "1")
    again = igcv.load(SMALL).model.state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)
    assert len(site.asked) == 1 and capfd.readouterr().err == ""
    assert left(download.weights_folder()) == [cached_file(SMALL).name]


def test_another_checksum_is_another_file(
    known: nn.Module, site: Published, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = weights_path(SMALL)
    monkeypatch.setitem(KNOWN, SMALL, replace(KNOWN[SMALL], checksum="sha1:" + 40 * "0"))
    with pytest.raises(igcv.InputError, match="igcv did not use the file"):
        weights_path(SMALL)
    assert before.is_file()


def test_every_command_takes_the_name(
    known: nn.Module, igcv_command: Igcv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    image = Image.fromarray(np.random.default_rng(0).integers(0, 256, (250, 300, 3), np.uint8))
    image.save("photo.png")
    done = igcv_command("predict", SMALL, "photo.png", "--json", "--top", 1)
    [answer] = json.loads(done.out)["predictions"]
    with torch.inference_mode():
        best = known(igcv.load(SMALL).transform(image).unsqueeze(0)).softmax(-1).max(-1)
    assert answer["class"] == imagenet_classes()[0][int(best.indices)]
    assert answer["probability"] == pytest.approx(float(best.values), abs=1e-4)
    assert igcv_command("convert", SMALL, "mine.safetensors").status == 0
    assert load_weights(Path("mine.safetensors"))[1] == igcv.load(SMALL).card
    assert igcv_command("convert", SMALL, "mine-0000.params").status == 0
    listed = [json.loads(line) for line in igcv_command("models", "--pretrained", "--json").out.splitlines()]
    places = {row["name"]: row["place"] for row in listed}
    assert (places[SMALL], places["igcv3_d_100.imagenet"]) == ("cache", "github.com")
    assert places["igcv3_w_025.digits"] == "igcv"
    assert not is_name(SMALL) and is_name("igcv3_d_025")  # for igcv bench latency
    shown = igcv_command("models", "igcv3_d_025", "--pretrained").out
    assert "46.30" in shown and "cache" in shown and "license: MIT" in shown and "igcv3_d_100" not in shown


def test_imagenet_folders_are_known_by_synset(known: nn.Module, igcv_command: Igcv, tmp_path: Path) -> None:
    """Evaluate a subset of the classes, matched by name, with the pixels of torchvision as reference."""
    names, ids = imagenet_classes()
    rng, losses = np.random.default_rng(0), []
    crop = MobileNet_V2_Weights.IMAGENET1K_V1.transforms()  # the same crop as pytorchcv
    for label in (7, 300, 999):
        folder = tmp_path / "imagenet" / "val" / ids[label]
        folder.mkdir(parents=True)
        for i in range(2):
            image = Image.fromarray(rng.integers(0, 256, (240, 270, 3), np.uint8))
            image.save(folder / f"{i}.png")
            with torch.inference_mode():
                logits = known(crop(image).unsqueeze(0))
            losses.append(float(nn.functional.cross_entropy(logits, torch.tensor([label]))))
    done = igcv_command(
        "evaluate", SMALL, "--data", f"folder:{tmp_path}/imagenet", "--json", "--device", "cpu"
    )
    assert done.status == 0, done.err
    found = json.loads(done.out)
    assert found["images"] == 6 and found["loss"] == pytest.approx(np.mean(losses), rel=1e-3)
    assert [name for name, row in found["classes"].items() if row["images"]] == [
        names[label] for label in (7, 300, 999)
    ]


# Choice of the weights


def test_the_table_decides_what_pretrained_means(site: Published, monkeypatch: pytest.MonkeyPatch) -> None:
    assert find_weights("igcv3_d_100") == "igcv3_d_100.imagenet"
    assert find_weights("igcv3_w_025") == "igcv3_w_025.digits"
    released = {"igcv3_d_100.cifar10": Path("a"), "igcv3_d_p50.cifar10": Path("b")}
    monkeypatch.setattr("igcv.weights.pretrained.released_weights", lambda: released)
    assert find_weights("igcv3_d_100") == "igcv3_d_100.imagenet"  # although it cannot be downloaded
    assert find_weights("igcv3_d_p50") == "igcv3_d_p50.cifar10"
    with pytest.raises(
        igcv.InputError, match=r'404 Not Found.*Or use pretrained="cifar10", which comes with'
    ):
        igcv.create_model("igcv3_d_100", pretrained=True)
    with pytest.raises(
        igcv.InputError, match=r"unknown weights 'igcv3_d_100\.cifar100'; did you mean 'igcv3_d_100\.cifar10'"
    ):
        igcv.create_model("igcv3_d_100", pretrained="cifar100")


def test_create_model(known: nn.Module) -> None:
    whole = igcv.create_model("igcv3_d_025", pretrained="imagenet").eval()
    tuned = igcv.create_model("igcv3_d_025", 5, pretrained=True, drop_rate=0.1)
    images = torch.randn(1, 3, 224, 224)
    with torch.inference_mode():
        assert torch.allclose(whole(images), known(images), rtol=1e-4, atol=1e-4)
    assert tuned.classifier.weight.shape[0] == 5
    assert torch.equal(tuned.stem.conv.weight, whole.stem.conv.weight)


def test_timm(known: nn.Module, site: Published) -> None:
    images = torch.randn(1, 3, 224, 224)
    whole = timm.create_model("igcv3_d_025", pretrained=True).eval()
    tagged = timm.create_model("igcv3_d_025.imagenet", pretrained=True, num_classes=3)
    gray = timm.create_model("igcv3_d_025", pretrained=True, in_chans=1)
    levels = timm.create_model("igcv3_d_025", pretrained=True, features_only=True)
    with torch.inference_mode():
        assert torch.allclose(whole(images), known(images), rtol=1e-4, atol=1e-4)
    weight = whole.stem.conv.weight
    assert torch.equal(tagged.stem.conv.weight, weight) and tagged.classifier.weight.shape[0] == 3
    assert torch.allclose(gray.stem.conv.weight, weight.sum(1, keepdim=True))
    assert any(torch.equal(p, weight) for p in levels.parameters())
    assert len(site.asked) == 1
    assert timm.data.resolve_model_data_config(whole)["interpolation"] == "bilinear"
    assert "igcv3_d_025.imagenet" in timm.list_models("igcv3*", pretrained=True)
    assert not timm.list_models("igcv1*", pretrained=True)
    file = str(cached_file(SMALL))
    own = timm.create_model("igcv3_d_025", pretrained=True, pretrained_cfg_overlay={"file": file})
    assert torch.equal(own.stem.conv.weight, weight)


def write_photos(folder: Path) -> Path:
    """Return a folder of two classes with six noisy photos each."""
    rng = np.random.default_rng(0)
    for name in ("beach", "forest"):
        (folder / name).mkdir(parents=True)
        for i in range(6):
            Image.fromarray(rng.integers(0, 256, (70, 90, 3), np.uint8)).save(folder / name / f"{i}.png")
    return folder


def test_training_starts_from_imagenet(
    site: Published, igcv_command: Igcv, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a recipe, training chooses its initial weights. A recipe names them."""
    name = "igcv3_d_050.imagenet"
    put(name, site, tmp_path, monkeypatch)
    data = ["--data", f"folder:{write_photos(tmp_path / 'photos')}", "--device", "cpu"]
    few = ["input_size=32", "epochs=2", "workers=0", "precision=float32", "batch_size=4"]
    done = igcv_command("train", *data, *few, "freeze=1", "--out", tmp_path / "run")
    assert done.status == 0, done.err
    assert (
        f"{name}  (trained on ImageNet, 7.9 MB from github.com, downloaded once; init_from=none starts"
        in done.out
    )
    assert f"starting from {name}: igcv3_d_050" in done.out
    assert f'init_from = "{name}"' in (tmp_path / "run" / "recipe.toml").read_text()
    assert len(site.asked) == 1
    facts = Facts(10, 70, False, False)
    assert start_for(facts, {}).reason.startswith(
        "trained on ImageNet, from the cache; init_from=none starts from"
    )
    done = igcv_command(
        "train",
        "cifar_fast.toml",
        *data,
        "--model",
        "igcv3_d_025",
        *few,
        "warmup_epochs=0",
        "--out",
        tmp_path / "recipe",
    )
    assert done.status == 0 and "starting from" not in done.out and len(site.asked) == 1


def test_training_goes_on_without_imagenet(
    site: Published, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(download, "WAIT_S", 0.2)
    site.wait_s = 1
    found = start_for(Facts(10, 70, False, False), {"model": "igcv3_d_025"})
    assert found.name == "none"
    assert "igcv3_d_025.imagenet is not available: download from 127.0.0.1:" in found.reason
    assert found.reason.endswith("failed (no answer within 0.2 s)")


# With internet access

PHOTOS = Path(os.environ.get("IGCV_TEST_PHOTOS", Path(__file__).parents[2] / "shared/data/imagenet_photos"))


@pytest.mark.network
@pytest.mark.skipif(
    not os.environ.get("IGCV_TEST_NETWORK"),
    reason="downloads 120 MB: set IGCV_TEST_NETWORK=1, and IGCV_TEST_PHOTOS to a folder of ImageNet photos by synset",
)
def test_the_real_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file exists with its checksum, and its accuracy on photographs is close to the published accuracy."""
    monkeypatch.delenv("IGCV_OFFLINE", raising=False)
    monkeypatch.setenv("IGCV_CACHE", str(tmp_path))
    for name, row in KNOWN.items():
        assert igcv.load(name).card.num_classes == 1000
        if PHOTOS.is_dir():
            found = igcv.evaluate(name, f"folder:{PHOTOS}", device="cpu")
            assert found.top5 > row.top5 - 20, name
    assert {row.place for row in list_weights() if row.name in KNOWN} == {"cache"}
