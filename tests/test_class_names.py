"""Matching of classes by name: in evaluation, in a resumed run, and in a training that starts from weights."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits

import igcv
from igcv.data import DataSource, open_source, write_records
from igcv.data.classes import KnownClasses, matched
from igcv.data.images import ArrayImages
from igcv.errors import InputError
from igcv.machine.processes import Process
from igcv.training import Recipe
from igcv.training.headline import classifier_of
from igcv.training.job import resolve
from igcv.training.start import start_network
from igcv.weights import load_weights, save_weights
from igcv.weights.released import released_weights
from tests.conftest import Igcv

RELEASED = "igcv3_w_025.digits"
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
TINY: dict[str, Any] = {
    **{"model": "igcv3_w_010", "input_size": 16, "batch_size": 8, "workers": 0, "precision": "float32"},
    **{"device": "cpu", "quiet": True},
}


def folders(root: Path, names: dict[int, str], images: int = 6) -> Path:
    """Write the last digits of some classes to folders with these names."""
    digits = load_digits()
    for digit, name in names.items():
        (root / name).mkdir(parents=True)
        for i, pixels in enumerate(digits.images[digits.target == digit][-images:]):
            Image.fromarray(np.round(pixels * (255 / 16)).astype("uint8")).save(root / name / f"{i}.png")
    return root


def source(names: tuple[str, ...], labels: list[int], named: bool = True) -> DataSource:
    """Return a source with a black image of each label."""
    pixels = np.zeros((len(labels), 2, 2, 3), np.uint8)
    return DataSource("some", None, ArrayImages(pixels, np.array(labels), "some"), names, 2, named=named)


def labels(found: DataSource) -> list[int]:
    images = found.val
    assert images is not None and not isinstance(images, igcv.data.StreamImages)
    assert [images[i][1] for i in range(len(images))] == images.labels.tolist()
    return images.labels.tolist()


@pytest.mark.parametrize(
    "names, known, expected, note",
    [
        (("a", "b"), ("a", "b"), [0, 1, 1], ""),
        (
            ("b", "a"),
            ("a", "b"),
            [1, 0, 0],
            "matched by name; the data and the network order them differently",
        ),
        (("a", "c"), ("a", "b", "c"), [0, 2, 2], "2 of the network's 3 classes; the network predicts all 3"),
        (("c", "a"), ("a", "b", "c"), [2, 0, 0], "order them differently"),
        (("cafe\u0301", "a"), ("caf\xe9", "a"), [0, 1, 1], ""),  # the same name, stored in two ways
    ],
)
def test_by_name(names: tuple[str, ...], known: tuple[str, ...], expected: list[int], note: str) -> None:
    found = matched(source(names, [0, 1, 1]), KnownClasses(len(known), (known,)))
    assert labels(found) == expected and found.class_names == known
    assert note in " ".join(found.notes) and bool(note) == bool(found.notes)
    again = matched(found, KnownClasses(len(known), (known,)))
    assert labels(again) == expected and again.notes == found.notes


def test_by_another_naming() -> None:
    """ImageNet's folders are named by synsets, the network's classes by words."""
    known = KnownClasses(3, (("tench", "goldfish", "shark"), ("n01440764", "n01443537", "n01484850")))
    found = matched(source(("n01443537", "n01484850"), [0, 1]), known)
    assert labels(found) == [1, 2] and found.class_names == known.namings[0]


@pytest.mark.parametrize(
    "named, namings, note",
    [
        (False, (("a", "b"),), "some has no class names, so classes are matched by number"),
        (True, (), "the network has no class names, so classes are matched by number"),
        (False, (), ""),
    ],
)
def test_without_names(named: bool, namings: tuple[tuple[str, ...], ...], note: str) -> None:
    found = matched(source(("0", "1"), [1, 0], named), KnownClasses(2, namings))
    assert labels(found) == [1, 0] and found.notes == ((note,) if note else ())


@pytest.mark.parametrize(
    "names, match, message",
    [
        (
            ("a", "d"),
            "name",
            r"different classes \(only in the data: d; only in the network: b, c\)\. Rename .* --match",
        ),
        (("a", "b"), "order", "cannot match classes by order: some has 2 classes, the network has 3"),
        (("a", "b"), "number", "unknown way to match classes 'number'"),
    ],
)
def test_what_cannot_be_matched(names: tuple[str, ...], match: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        matched(source(names, [0]), KnownClasses(3, (("a", "b", "c"),)), match)


def test_more_classes_than_the_network_has() -> None:
    with pytest.raises(InputError, match="some has 3 classes, the network has 2"):
        matched(source(("0", "1", "2"), [0], named=False), KnownClasses(2, (("a", "b"),)))


def test_evaluation(tmp_path: Path, igcv_command: Igcv) -> None:
    """The same images are evaluated with equal names, with fewer classes, with other names, and by order."""
    right = folders(tmp_path / "right", {digit: str(digit) for digit in range(10)})
    expected = igcv.evaluate(RELEASED, str(right), device="cpu")
    assert expected.top1 > 90 and expected.notes == ()
    some = igcv.evaluate(RELEASED, str(folders(tmp_path / "some", {7: "7", 3: "3"})), device="cpu")
    whole = {pair: n for pair, n in expected.confusion.items() if pair[0] in (3, 7)}
    assert some.confusion == whole and some.images == 12 and len(some.class_names) == 10
    other = folders(tmp_path / "other", {digit: f"digit {digit}" for digit in range(10)})
    refused = igcv_command("evaluate", RELEASED, "--data", other, "--device", "cpu")
    assert refused.status == 2
    assert "only in the data: digit 0, digit 1, digit 2, digit 3, digit 4 and 5 more" in refused.err
    assert "only in the network: 0, 1, 2, 3, 4 and 5 more" in refused.err
    by_order = igcv.evaluate(RELEASED, str(other), match="order", device="cpu")
    assert by_order.confusion == expected.confusion


def test_weights_remember_their_own_order(tmp_path: Path) -> None:
    """The accuracy stays the same if the network's classes have another order than the folders."""
    tensors, card = load_weights(released_weights()[RELEASED])
    order = [NAMES.index(name) for name in sorted(NAMES, reverse=True)]
    for name in ("classifier.weight", "classifier.bias"):
        tensors[name] = tensors[name][order]
    words = tuple(NAMES[label] for label in order)
    file = tmp_path / "words.safetensors"
    save_weights(file, tensors, replace(card, class_names=words))
    data = folders(tmp_path / "words", dict(enumerate(NAMES)))
    numbers = folders(tmp_path / "numbers", {digit: str(digit) for digit in range(10)})
    found, expected = (
        igcv.evaluate(*pair, device="cpu") for pair in ((file, str(data)), (RELEASED, str(numbers)))
    )
    assert found.top1 == expected.top1 and "classes are matched by name" in found.notes[0]
    assert found.classes[0].images == 6 and found.class_names == words


def test_records_without_names(tmp_path: Path) -> None:
    images = open_source(
        str(folders(tmp_path / "photos", {digit: str(digit) for digit in range(10)})), None
    ).val
    assert images is not None
    encoded = [(label, Path(images.name(i)).read_bytes()) for i, label in enumerate(images.labels.tolist())]
    write_records(tmp_path / "val.rec", encoded)
    found = igcv.evaluate(RELEASED, f"rec:,{tmp_path / 'val.rec'}", device="cpu")
    assert found.top1 > 90 and found.notes[-1].endswith("no class names, so classes are matched by number")


@pytest.fixture(scope="module")
def begun(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train a run of one epoch, with its data next to it."""
    place = tmp_path_factory.mktemp("begun")
    shutil.copytree(digit_folder, place / "photos")
    return igcv.train(out=place / "run", data=str(place / "photos"), epochs=1, lr=0.05, **TINY).folder


@pytest.fixture
def place(begun: Path, tmp_path: Path) -> Path:
    """Copy the run and its data to a separate folder."""
    return shutil.copytree(begun.parent, tmp_path / "place")


def resume(place: Path, photos: str = "photos", **settings: Any) -> igcv.TrainedRun:
    data = {"data": str(place / photos)}
    return igcv.train(out=place / "run", resume=True, epochs=2, **data, **settings, device="cpu", quiet=True)


def test_a_run_goes_on_with_data_that_have_moved(place: Path) -> None:
    shutil.move(place / "photos", place / "elsewhere")
    assert resume(place, "elsewhere").summary["epochs"] == 2


def test_a_run_keeps_the_order_of_its_classes(place: Path) -> None:
    """Change the class order of the run, as if folders had been sorted differently at its start."""
    file = place / "run" / "data.json"
    kept = json.loads(file.read_text())
    assert kept["classes"] == ["one", "zero"]
    file.write_text(json.dumps({**kept, "classes": ["zero", "one"], "spec": str(place / "photos")}))
    ended = resume(place)
    assert ended.classifier.card.class_names == ("zero", "one")


def test_a_run_of_before_knows_its_classes_by_its_weights(place: Path) -> None:
    (place / "run" / "data.json").unlink()
    for part in ("train", "val"):
        (place / "photos" / part / "one").rename(place / "photos" / part / "uno")
    with pytest.raises(InputError, match=r"only in the data: uno; only in the network: one.*match=order"):
        resume(place)


def renamed(photos: Path) -> None:
    for part in ("train", "val"):
        (photos / part / "one").rename(photos / part / "zulu")  # sorted after zero


def added(photos: Path) -> None:
    for part in ("train", "val"):
        shutil.copytree(photos / part / "one", photos / part / "two")


@pytest.mark.parametrize(
    "change, message",
    [
        (renamed, r"different classes \(only in the data: zulu; only in the network: one\)"),
        (added, r"different classes \(only in the data: two\)"),
    ],
)
def test_classes_that_have_changed_since(change: Any, message: str, place: Path) -> None:
    change(place / "photos")
    with pytest.raises(InputError, match=message):
        resume(place)


def test_a_class_that_was_renamed_on_purpose(place: Path) -> None:
    for part in ("train", "val"):
        (place / "photos" / part / "one").rename(place / "photos" / part / "number one")
    assert resume(place, match="order").classifier.card.class_names == ("number one", "zero")


def test_other_data_under_the_same_classes(place: Path) -> None:
    shutil.copytree(place / "photos", place / "other")
    (place / "other" / "train" / "one" / "0.png").unlink()
    with pytest.raises(InputError, match=r"other' has different images or labels, .* --init-from"):
        resume(place, "other")


@pytest.mark.parametrize(
    "setting", [{"preprocessing": "mxnet"}, {"seed": 1}, {"init_from": "igcv3_w_025.digits"}]
)
def test_settings_that_a_run_keeps(setting: dict[str, Any], place: Path) -> None:
    (key,) = setting
    with pytest.raises(InputError, match=f"{key}: got .*, expected .* as in the run .*Resume with"):
        resume(place, **setting)
    assert resume(place, lr=0.01, augment="none").summary["epochs"] == 2


@pytest.mark.parametrize(
    "names, rows, told",
    [
        (("zero", "one"), [1, 0], "2 of the 10 classes of the classifier kept, classes matched by name"),
        (
            tuple(sorted(NAMES)),
            [NAMES.index(n) for n in sorted(NAMES)],
            "classifier kept, classes matched by name",
        ),
        (("cat", "dog"), None, "new classifier for 2 classes (not among the 10 classes of the weights)"),
        (
            (*NAMES[:9], "ten"),
            None,
            "new classifier for 10 classes (not among the 10 classes of the weights)",
        ),
    ],
)
def test_the_classifier_of_a_start(
    names: tuple[str, ...], rows: list[int] | None, told: str, tmp_path: Path
) -> None:
    tensors, card = load_weights(released_weights()[RELEASED])
    start = tmp_path / "words.safetensors"
    save_weights(start, tensors, replace(card, class_names=NAMES))
    data = folders(tmp_path / "photos", dict(enumerate(names)), images=2)
    recipe = Recipe(model="igcv3_w_025", data=str(data), input_size=16, init_from=str(start))
    job = resolve(recipe, Process(torch.device("cpu")))
    weight = start_network(job).classifier.weight
    if rows is None:
        assert weight.shape[0] == len(names) and not torch.equal(weight[0], tensors["classifier.weight"][0])
    else:
        assert torch.equal(weight, tensors["classifier.weight"][rows])
    assert classifier_of(job) == told


def test_a_start_whose_classes_have_no_names(tmp_path: Path) -> None:
    """After a conversion, classes match if their number is equal."""
    tensors, card = load_weights(released_weights()[RELEASED])
    save_weights(tmp_path / "bare.safetensors", tensors, replace(card, class_names=()))
    data = folders(tmp_path / "photos", dict(enumerate(NAMES)), images=2)
    recipe = Recipe(
        model="igcv3_w_025", data=str(data), input_size=16, init_from=str(tmp_path / "bare.safetensors")
    )
    job = resolve(recipe, Process(torch.device("cpu")))
    assert torch.equal(start_network(job).classifier.weight, tensors["classifier.weight"])
