"""Unequal classes: scores against scikit-learn, class weights, balanced epochs, best epoch, exact resume."""

import json
import math
import shutil
import signal
from collections import Counter
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from sklearn.metrics import accuracy_score, balanced_accuracy_score, precision_recall_fscore_support
from timm.data import Mixup

from igcv.data import BATCHED, Finish, Loader, LoaderSettings, make_loader, open_source, train_transform
from igcv.data.images import ArrayImages
from igcv.data.preprocessing import Preprocessing, plain_transform
from igcv.errors import InputError, Interrupted
from igcv.evaluation.accuracy import Evaluation, accuracy_of
from igcv.evaluation.scores import balanced_accuracy, class_scores, constant_answer, constant_note
from igcv.machine.processes import Process
from igcv.training import Recipe, load_recipe, read_metrics
from igcv.training.balance import check_balance, class_weights, cross_entropy
from igcv.training.loop import Wish
from igcv.training.phases import train_in
from igcv.training.run_report import read_run
from igcv.training.state import decode
from igcv.weights import load_weights, read_tensors
from studies.soak.readers import CORPUS
from tests.conftest import Igcv

CPU = Process(torch.device("cpu"))
PRE = Preprocessing(8, (0.2, 0.3, 0.4), (0.5, 0.6, 0.7), 1.0, "bilinear")
RARE = {(0, 0): 570, (1, 0): 30}  # the network predicts only the common class
SMALL = ["model=igcv3_w_010", "input_size=8", "batch_size=6", "augment=shift", "lr=0.05", "workers=0"]


def test_a_network_that_misses_the_rare_class() -> None:
    common, rare = class_scores(RARE, 2)
    assert common == (570, 100.0, 95.0, pytest.approx(100 * 2 * 570 / (570 + 600)))
    assert rare == (30, 0.0, None, 0.0)
    assert balanced_accuracy(RARE) == 50
    assert constant_answer(RARE) == 0
    assert constant_note(RARE, ("cat", "lynx")) == (
        "no better than always predicting 'cat': top-1 95.00 %, and 95.00 % of the validation images are of this class "
        "(balanced accuracy 50.00 %)"
    )
    found = Evaluation(0.2, 95.0, 100.0, 600, RARE, [], "folder:photos", ("cat", "lynx")).as_dict()
    assert (found["top1"], found["balanced"], found["no_better_than"]) == (95.0, 50.0, "cat")
    assert found["per_class"] == {"cat": 100.0, "lynx": 0.0}
    assert found["classes"]["lynx"] == {"images": 30, "recall": 0.0, "precision": None, "f1": 0.0}


@pytest.mark.parametrize(
    "confusion, answer",
    [
        ({(0, 0): 4, (0, 1): 1, (1, 0): 1, (1, 1): 2}, None),  # 6 of 8 right, 5 of the larger class
        ({(0, 0): 4, (0, 1): 1, (1, 0): 2, (1, 1): 1}, 0),  # 5 of 8 right, 5 of the larger class
        ({(0, 1): 5, (1, 1): 3}, 1),  # one prediction for all images
        ({(0, 0): 3, (1, 1): 3}, None),
        ({(0, 0): 3}, None),  # images of one class only
    ],
)
def test_whether_a_constant_answer_is_as_good(confusion: dict, answer: int | None) -> None:
    assert constant_answer(confusion) == answer
    assert bool(constant_note(confusion, ("a", "b"))) == (answer is not None)


PAIRS = st.integers(1, 5).flatmap(
    lambda k: st.tuples(
        st.just(k), st.lists(st.tuples(*[st.integers(0, k - 1)] * 2), min_size=1, max_size=40)
    )
)


@pytest.mark.filterwarnings("ignore:y_pred contains classes not in y_true")
@pytest.mark.filterwarnings("ignore:A single label was found")
@given(PAIRS)
def test_scores_are_those_of_scikit_learn(drawn: tuple[int, list[tuple[int, int]]]) -> None:
    classes, pairs = drawn
    labels, answers = zip(*pairs, strict=True)
    confusion = Counter(pairs)
    expected = precision_recall_fscore_support(labels, answers, labels=range(classes), zero_division=np.nan)
    for label, scores in enumerate(class_scores(confusion, classes)):
        for value, column in zip((scores.precision, scores.recall, scores.f1), expected[:3], strict=True):
            reference = float(column[label])
            assert value is None if math.isnan(reference) else value == pytest.approx(100 * reference)
        assert scores.images == expected[3][label]
    assert balanced_accuracy(confusion) == pytest.approx(100 * balanced_accuracy_score(labels, answers))
    right = sum(n for (label, answer), n in confusion.items() if label == answer)
    assert right / len(pairs) == pytest.approx(accuracy_score(labels, answers))


def images_of(*counts: int) -> ArrayImages:
    """Return noise images of 8 x 8 pixels with the given number per class."""
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.random.default_rng(0).integers(0, 256, (len(labels), 8, 8, 3), np.uint8)
    return ArrayImages(pixels, labels, "noise")


def test_the_weights_of_the_classes() -> None:
    source = replace(open_source("digits"), train=images_of(6, 2, 0, 4), class_names=("a", "b", "c", "d"))
    weights = class_weights(Recipe(class_weights="balanced"), source, CPU.device)
    assert weights is not None
    assert weights.tolist() == pytest.approx([12 / (3 * 6), 12 / (3 * 2), 0, 12 / (3 * 4)])
    assert weights[torch.from_numpy(source.train.labels)].mean() == pytest.approx(1)  # type: ignore[union-attr]
    assert class_weights(Recipe(), source, CPU.device) is None


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("mixed", [False, True])
def test_the_weighted_loss_by_hand(smoothing: float, mixed: bool) -> None:
    logits = torch.randn(6, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    labels, weights = torch.tensor([0, 1, 2, 2, 0, 1]), torch.tensor([0.5, 1.0, 4.0])

    def loss(image: int, label: int) -> float:
        logs = logits[image].log_softmax(0)
        own = -(1 - smoothing) * logs[label] - smoothing * logs.mean()
        return float(weights[label] * own)

    targets, share = labels, 1.0
    if mixed:
        np.random.seed(0)
        mix = Mixup(mixup_alpha=0.5, label_smoothing=smoothing, num_classes=3)
        mix._params_per_batch = lambda: (0.3, False)  # type: ignore[method-assign]
        _, targets = mix(torch.zeros(6, 3, 4, 4), labels)
        share = 0.3
    others = labels.flip(0)
    expected = np.mean(
        [share * loss(i, labels[i]) + (1 - share) * loss(i, others[i]) for i in range(len(labels))]
    )
    found = cross_entropy(logits, targets, smoothing, weights, mixed)
    assert float(found) == pytest.approx(expected, rel=1e-6)
    halves = [
        cross_entropy(logits[part], targets[part], smoothing, weights, mixed)
        for part in (slice(3), slice(3, 6))
    ]
    assert float(sum(halves) / 2) == pytest.approx(
        expected, rel=1e-6
    )  # the sums of processes and micro-batches
    even = cross_entropy(logits, targets, smoothing, torch.ones(3), mixed)
    assert float(even) == pytest.approx(
        float(cross_entropy(logits, targets, smoothing, None, mixed)), rel=1e-6
    )


def loader(images: ArrayImages, resident: Any = None, transform: Any = None, **changes: Any) -> Loader:
    settings = {"batch_size": 4, "train": True, "skip_bad": True, "balanced": True, "resident": resident}
    return make_loader(
        images, transform or plain_transform(PRE), Finish(PRE), LoaderSettings(**settings | changes)
    )


@pytest.mark.parametrize("world_size", [1, 2, 3])
def test_each_class_is_drawn_equally_often(world_size: int) -> None:
    images = images_of(1, 5, 18)
    parts = [loader(images, rank=rank, world_size=world_size) for rank in range(world_size)]
    epochs = []
    for epoch in range(3):
        for part in parts:
            part.set_epoch(epoch)
        drawn = list(chain(*(part._order.indices() for part in parts)))  # type: ignore[union-attr]
        assert Counter(images.labels[drawn].tolist()) == {0: 8, 1: 8, 2: 8}
        assert sorted(Counter(drawn).values(), reverse=True)[:6] == [8, 2, 2, 2, 1, 1]
        assert [sum(len(labels) for _, labels in part) for part in parts] == [
            24 // world_size // 4 * 4
        ] * world_size
        epochs.append(drawn)
    assert epochs[0] != epochs[1] != epochs[2]
    again = [loader(images, rank=rank, world_size=world_size) for rank in range(world_size)]
    assert list(chain(*(part._order.indices() for part in again))) == epochs[0]  # type: ignore[union-attr]


def test_what_is_left_over_goes_to_classes_by_chance() -> None:
    images = images_of(1, 2, 4)
    part, larger = loader(images, batch_size=7), set()
    for epoch in range(20):
        part.set_epoch(epoch)
        counts = Counter(images.labels[part._order.indices()].tolist())  # type: ignore[union-attr]
        assert sorted(counts.values()) == [2, 2, 3]
        larger.add(max(counts, key=lambda label: counts[label]))
    assert larger == {0, 1, 2}


def batches_of(part: Loader, epoch: int, start: int = 0) -> list[torch.Tensor]:
    part.set_epoch(epoch, start)
    return [images for images, _ in part]


@pytest.mark.parametrize("resident", [None, BATCHED["flip_crop"]], ids=["decoded", "resident"])
def test_an_image_that_repeats_is_augmented_each_time(resident: Any) -> None:
    transform = train_transform(PRE, "flip_crop") if resident is None else None
    parts = [loader(images_of(1, 15), resident, transform, batch_size=16) for _ in range(2)]
    (images,), (again,) = (batches_of(part, 1) for part in parts)
    assert torch.equal(images, again)
    numbers = parts[0]._order.indices()  # type: ignore[union-attr]
    repeats = [images[i] for i, number in enumerate(numbers) if number == 0]
    assert len(repeats) == 8
    assert len({image.numpy().tobytes() for image in repeats}) > 2


@pytest.mark.parametrize("resident", [None, BATCHED["flip_crop"]], ids=["decoded", "resident"])
def test_an_epoch_goes_on_where_it_was(resident: Any) -> None:
    transform = train_transform(PRE, "flip_crop") if resident is None else None
    whole = batches_of(loader(images_of(3, 9), resident, transform), 2)
    rest = batches_of(loader(images_of(3, 9), resident, transform), 2, start=1)
    assert len(whole) == 3 and all(torch.equal(a, b) for a, b in zip(whole[1:], rest, strict=True))


def test_resident_images_come_in_the_order_of_others() -> None:
    held, plain = loader(images_of(3, 9), BATCHED["none"]), loader(images_of(3, 9))
    for epoch in range(2):
        pairs = zip(batches_of(held, epoch), batches_of(plain, epoch), strict=True)
        assert all(torch.equal(a, b) for a, b in pairs)


@pytest.fixture(scope="module")
def photos(digit_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write twelve ones and three zeros for training, and the usual validation images."""
    root = shutil.copytree(digit_folder, tmp_path_factory.mktemp("unequal") / "photos")
    for image in sorted((root / "train" / "zero").iterdir())[3:]:
        image.unlink()
    return root


def run(data: Path, out: Path, *settings: str, resume: bool = False) -> dict:
    recipe = load_recipe(None, [*SMALL, f"data={data}", *settings])
    return train_in(CPU, recipe, out, resume=resume, quiet=True)


@pytest.mark.parametrize(
    "settings",
    [
        ("sampling=balanced", "augment=flip_crop", "resident=on", "best_by=balanced"),
        ("sampling=balanced", "augment=inception", "random_erasing=0.5", "best_by=loss"),
        ("class_weights=balanced", "mixup=0.2", "label_smoothing=0.1", "best_by=loss", "schedule=constant"),
    ],
    ids=["resident", "decoded", "weights"],
)
def test_resumed_is_uninterrupted(settings: tuple[str, ...], photos: Path, tmp_path: Path) -> None:
    """A run resumed in the middle of the second of three epochs is exact."""
    run(photos, tmp_path / "whole", "epochs=3", *settings)
    wishes = [Wish()] * 2 + [Wish(signal=signal.SIGTERM)]
    with mock.patch("igcv.training.checkpoint.Watch.wish", side_effect=wishes), suppress(Interrupted):
        run(photos, tmp_path / "parts", "epochs=3", *settings)
        raise AssertionError("the run was not interrupted")
    run(photos, tmp_path / "parts", "epochs=3", *settings, resume=True)
    for name in ("last", "best", "state"):
        whole, parts = (read_tensors(tmp_path / out / f"{name}.safetensors")[0] for out in ("whole", "parts"))
        assert whole.keys() == parts.keys() and all(torch.equal(whole[key], parts[key]) for key in whole)
    states = [decode(tmp_path / out / "state.safetensors") for out in ("whole", "parts")]
    assert states[0].best == states[1].best is not None
    keys = ("epoch", "train_loss", "val_loss", "val_top1", "val_balanced")
    rows = [
        [[row[key] for key in keys] for row in read_metrics(tmp_path / out)] for out in ("whole", "parts")
    ]
    assert rows[0] == rows[1]


# Loss, top-1 and confusions: top-1, balanced accuracy and loss are best in the first, second and third epoch.
EPOCHS = [
    (0.7, 80.0, {(0, 0): 8, (1, 0): 2}),
    (0.6, 70.0, {(0, 0): 5, (0, 1): 3, (1, 1): 2}),
    (0.5, 60.0, {(0, 0): 6, (0, 1): 2, (1, 0): 2}),
]


@pytest.mark.parametrize("best_by, epoch", [("top1", 1), ("balanced", 2), ("loss", 3)])
def test_what_the_best_epoch_is_best_in(best_by: str, epoch: int, photos: Path, tmp_path: Path) -> None:
    found = iter(EPOCHS)

    def measured(*arguments: Any) -> Evaluation:
        loss, top1, confusion = next(found)
        return replace(accuracy_of(*arguments), loss=loss, top1=top1, confusion=confusion)

    with mock.patch("igcv.training.epochs.accuracy_of", measured):
        run(photos, tmp_path / "run", "epochs=2", f"best_by={best_by}")
        summary = run(photos, tmp_path / "run", "epochs=3", f"best_by={best_by}", resume=True)
    _, card = load_weights(tmp_path / "run" / "best.safetensors")
    report = read_run(tmp_path / "run")
    assert report.best is not None and report.evaluation is not None
    assert (card.results["epoch"], report.best["epoch"], report.evaluation["epoch"]) == (epoch,) * 3
    loss, top1, confusion = EPOCHS[epoch - 1]
    assert (summary["best_epoch"], summary["best_top1"]) == (epoch, top1)
    assert summary["best_balanced"] == card.results["balanced"] == balanced_accuracy(confusion)
    best = {"top1": top1, "balanced": balanced_accuracy(confusion), "loss": -loss}[best_by]
    assert decode(tmp_path / "run" / "state.safetensors").best == best
    assert summary["no_better_than"] == "one"  # at most 8 of 10 are right, and 8 are ones
    with pytest.raises(InputError, match=f"best_by: got .*, expected {best_by} as in the run"):
        run(photos, tmp_path / "run", "epochs=4", f"best_by={'loss' if epoch < 3 else 'top1'}", resume=True)


def test_logits_that_are_no_numbers_stop_a_run(photos: Path, tmp_path: Path) -> None:
    """One step per epoch leaves finite weights that overflow in the evaluation; nothing is saved."""
    settings = ("batch_size=15", "schedule=constant")
    run(photos, tmp_path / "run", "epochs=1", *settings)
    before = {
        name: (tmp_path / "run" / name).read_bytes() for name in ("best.safetensors", "state.safetensors")
    }
    with pytest.raises(
        InputError,
        match=r"non-finite logits for 10 of 10 images, .* after epoch 2. Lower lr, .* with --resume",
    ):
        run(photos, tmp_path / "run", "epochs=2", "lr=1e20", *settings, resume=True)
    assert before == {name: (tmp_path / "run" / name).read_bytes() for name in before}
    assert "NaN" not in (tmp_path / "run" / "metrics.jsonl").read_text()
    assert run(photos, tmp_path / "run", "epochs=2", *settings, resume=True)["best_epoch"] in (1, 2)


@pytest.mark.skipif(not CORPUS.is_dir(), reason="only a clone of the repository has the corpus of the fuzzer")
def test_states_from_before_are_readable() -> None:
    """The soak tests keep such a run, with the best top-1 accuracy."""
    state = decode(CORPUS / "state" / "small")
    assert (state.epoch, state.best) == (1, 50.0)


def test_a_run_says_that_a_constant_answer_is_as_good(tmp_path: Path, igcv_command: Igcv) -> None:
    """With equal images, a network can predict only one class."""
    for place, count in (("train/cat", 16), ("train/lynx", 4), ("val/cat", 4), ("val/lynx", 1)):
        (tmp_path / "photos" / place).mkdir(parents=True)
        for i in range(count):
            Image.new("RGB", (8, 8), (90, 90, 90)).save(tmp_path / "photos" / place / f"{i}.png")
    out, data = tmp_path / "run", f"data={tmp_path / 'photos'}"
    ended = igcv_command("train", data, *SMALL, "epochs=4", "--out", out, "--device", "cpu")
    assert ended.status == 0, ended.err
    summary = json.loads((out / "summary.json").read_text())
    assert summary["no_better_than"] == "cat" and summary["best_balanced"] == 50
    line = (
        "no better than always predicting 'cat': top-1 80.00 %, and 80.00 % of the validation images are of this class "
        "(balanced accuracy 50.00 %)"
    )
    assert f"{line}. Train longer, or give class_weights=balanced or sampling=balanced\n" in ended.out
    assert "80.00 %, balanced accuracy 50.00 %" in ended.out
    page = (out / "report.html").read_text()
    assert line.replace("'", "&#39;") in page and "Recall, precision and F1 per class" in page
    evaluated = igcv_command("evaluate", out, "--device", "cpu")
    assert f"{line}\n" in evaluated.out
    assert evaluated.out.splitlines()[-2].split() == ["lynx", "1", "0.00", "%", "0.00", "%"]
    figures = json.loads(igcv_command("evaluate", out, "--device", "cpu", "--json").out)
    assert figures["no_better_than"] == "cat"
    assert figures["classes"]["cat"] == {"images": 4, "recall": 100.0, "precision": 80.0, "f1": 88.89}


def test_a_better_network_says_nothing(photos: Path, tmp_path: Path) -> None:
    def measured(*arguments: Any) -> Evaluation:
        return replace(accuracy_of(*arguments), confusion={(0, 0): 5, (1, 1): 5})

    with mock.patch("igcv.training.epochs.accuracy_of", measured):
        summary = run(photos, tmp_path / "run", "epochs=1")
    assert summary["no_better_than"] is None and read_run(tmp_path / "run").note == ""
    assert summary["best_balanced"] == 100


def test_settings_that_do_not_fit(photos: Path) -> None:
    both = Recipe(class_weights="balanced", sampling="balanced")
    source = open_source(str(photos))
    with pytest.raises(InputError, match=r"class_weights = balanced and sampling = balanced.*Remove one"):
        check_balance(both, source)
    for key in ("class_weights", "sampling"):
        check_balance(Recipe(**{key: "balanced"}), source)


@pytest.mark.parametrize("key", ["class_weights", "sampling"])
def test_streams_do_not_tell_their_labels(key: str, photos: Path) -> None:
    class Stream:
        pass

    source = replace(open_source(str(photos)), train=Stream())  # type: ignore[arg-type]
    with (
        mock.patch("igcv.training.balance.StreamImages", Stream),
        pytest.raises(
            InputError,
            match=f"{key} = balanced needs the labels in advance, but .* can only be read as a stream",
        ),
    ):
        check_balance(Recipe(**{key: "balanced"}), source)
