"""Tests of the released weights: names, and the accuracies in their cards."""

from pathlib import Path

import pytest
import timm
import torch

import igcv
from igcv.data.sources.open import open_source
from igcv.weights import load_weights
from igcv.weights.pretrained import find_weights
from igcv.weights.released import released_weights
from igcv.weights.timm_names import TIMM_NAMES
from studies.table.__main__ import TOLERANCE
from studies.table.released import accuracy_of, public_spec
from tests.conftest import Igcv

NAMES = list(released_weights())
CIFAR_JPEG = Path(__file__).parents[2] / "shared" / "data" / "cifar10_jpeg" / "cifar10_val.rec"


def test_there_are_some() -> None:
    assert NAMES


@pytest.mark.parametrize("name", NAMES)
def test_cards_tell_the_truth(name: str) -> None:
    """Measure the accuracy again if a package includes the images. Cards name only public data."""
    file = released_weights()[name]
    _, card = load_weights(file)
    assert (card.model, card.results["data"]) == tuple(name.split("."))
    assert card.recipe["data"] == public_spec(card.results["data"], "digits")
    if card.recipe["data"] != "digits":
        pytest.skip("its images have to be downloaded: python -m studies.table check")
    found = accuracy_of(file)
    assert found.images == card.results["images"]
    assert found.top1 == pytest.approx(card.results["top1"], abs=TOLERANCE)


def test_a_fixed_subset() -> None:
    """Classify the first image of each digit. The lowest confidence is for the five."""
    val = open_source("digits", 0).val
    assert val is not None
    firsts = {label: val[i][0] for i in reversed(range(len(val))) for label in [int(val.labels[i])]}
    guesses = igcv.load("igcv3_w_025.digits").predict([firsts[label] for label in range(10)])
    assert [first.label for first, *_ in guesses] == list(range(10))
    assert min(first.probability for first, *_ in guesses) == pytest.approx(0.71, abs=0.01)


@pytest.mark.skipif(
    not CIFAR_JPEG.is_file(), reason="needs CIFAR-10's test images, which users do not have here"
)
def test_cifar_images_as_jpeg() -> None:
    """The released network classifies 244 of the first 300 test images correctly, saved as JPEG of quality 75."""
    images = open_source(f"rec:{CIFAR_JPEG}", None).val
    assert images is not None
    network, right = igcv.load("igcv3_d_p50.cifar10"), 0
    for first in range(0, 300, 50):
        photos, labels = zip(*(images[i] for i in range(first, first + 50)), strict=True)
        right += sum(
            best[0].label == label for best, label in zip(network.predict(photos, 1), labels, strict=True)
        )
    assert right == pytest.approx(244, abs=2)


def test_pretrained() -> None:
    model = igcv.create_model("igcv3_w_025", pretrained=True).eval()
    images = torch.randn(2, 3, 16, 16)
    with torch.no_grad():
        assert torch.equal(model(images), igcv.load("igcv3_w_025.digits").model(images))


def test_pretrained_with_other_classes() -> None:
    tuned = igcv.create_model("igcv3_w_025.digits", num_classes=3, pretrained=True, drop_rate=0.1)
    whole = igcv.create_model("igcv3_w_025", pretrained=True)
    assert tuned(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    key = "stages.0.0.expand.conv.weight"
    assert torch.equal(tuned.state_dict()[key], whole.state_dict()[key])


def test_by_name_on_the_command_line(igcv_command: Igcv) -> None:
    outcome = igcv_command("evaluate", "igcv3_w_025.digits")
    assert outcome.status == 0 and "359 images" in outcome.out


@pytest.mark.parametrize(
    "name, message",
    [
        (
            "igcv3_w_025.digit",
            "unknown weights 'igcv3_w_025.digit'; did you mean 'igcv3_w_025.digits'",
        ),
        ("igcv2_c416_d20", "unknown weights 'igcv2_c416_d20'"),
    ],
)
def test_unknown(name: str, message: str) -> None:
    with pytest.raises(igcv.InputError, match=message):
        igcv.create_model(name, pretrained=True)


def test_several(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a.x", "a.y", "b.x"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.setattr("igcv.weights.released.PLACES", (tmp_path,))
    assert find_weights("b") == "b.x"
    assert find_weights("a.y") == "a.y"
    with pytest.raises(igcv.InputError, match=r"several weights of a: a\.x, a\.y"):
        find_weights("a")


def test_of_several_releases_one_is_the_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a_100.digits", "a_100.cifar10", "a_100.mine", "b.mine", "b.yours", "c.mine"):
        (tmp_path / f"{name}.safetensors").touch()
    monkeypatch.setattr("igcv.weights.released.PLACES", (tmp_path,))
    assert find_weights("a_100") == "a_100.cifar10"
    assert find_weights("a_100.mine") == "a_100.mine"
    assert find_weights("c") == "c.mine"
    with pytest.raises(igcv.InputError, match=r"several weights of b: b\.mine, b\.yours"):
        find_weights("b")
    with pytest.raises(igcv.InputError, match="unknown weights 'a'"):
        find_weights("a")


@pytest.mark.parametrize("name", [name for name in NAMES if name.partition(".")[0] in TIMM_NAMES])
def test_timm_has_the_released_weights(name: str) -> None:
    """timm opens the weights by their name, and the default by the name of its network, with their classes and size."""
    network = name.partition(".")[0]
    ours = igcv.load(name)
    x = torch.rand(2, 3, ours.card.input_size, ours.card.input_size)
    names = [name, *([network] if find_weights(network) == name else [])]
    for model in (timm.create_model(each, pretrained=True) for each in names):
        assert model.eval()(x).equal(ours.model(x))
        config = timm.data.resolve_model_data_config(model)
        assert config["mean"] == ours.preprocessing.mean
        assert config["input_size"] == (3, ours.card.input_size, ours.card.input_size)
    assert name in timm.list_models("igcv*", pretrained=True)
    assert timm.create_model(network).num_classes == 1000
    tuned = timm.create_model(name, pretrained=True, num_classes=3)
    assert tuned.eval().forward_features(x).equal(ours.model.forward_features(x))
    assert tuned.num_classes == 3
