"""Accuracy and loss of a network on a set of images."""

from collections import Counter
from collections.abc import Iterable
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igcv.classifier import Classifier, as_classifier
from igcv.data import DataSource, Finish, Images, Loader, LoaderSettings, Moves, StreamImages, make_loader
from igcv.data.preprocessing import plain_transform
from igcv.errors import InputError
from igcv.evaluation.mistakes import Mistake, Names, Worst
from igcv.evaluation.scores import (
    ClassScores,
    balanced_accuracy,
    class_scores,
    constant_answer,
    constant_note,
    right_of,
)
from igcv.machine.precision import autocast
from igcv.machine.processes import (
    Process,
    first_on_machine,
    gather,
    process_group,
    sum_over_processes,
    together,
)
from igcv.models import Network, set_form


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation: counts over all images, and per class."""

    loss: float  # mean cross-entropy in nats
    top1: float  # percent
    top5: float  # percent
    images: int
    confusion: dict[tuple[int, int], int]  # (class, most probable class): images, where there are any
    mistakes: list[Mistake]  # the worst first, a few
    data: str = ""  # what it was measured on, as --data takes it
    data_name: str = ""  # what that is called
    class_names: tuple[str, ...] = ()  # in label order
    notes: tuple[str, ...] = ()  # on how the data was divided into parts, a line each

    @property
    def balanced(self) -> float:
        """Balanced accuracy: the mean recall of the classes that have images, percent."""
        return balanced_accuracy(self.confusion)

    @property
    def classes(self) -> list[ClassScores]:
        """Images, recall, precision and F1 of every class, in label order."""
        return class_scores(self.confusion, len(self.class_names))

    @property
    def no_better_than(self) -> str | None:
        """The class that it would be as good to answer always; None where the network is better."""
        answer = constant_answer(self.confusion)
        return None if answer is None else (self.class_names[answer] if self.class_names else str(answer))

    @property
    def note(self) -> str:
        """One line that says that the network is no better than always answering one class; empty if it is better."""
        return constant_note(self.confusion, self.class_names)

    def as_dict(self) -> dict[str, Any]:
        """The figures under plain names, those of the classes in percent under the class names.

        "per_class" has the accuracy of each class, "classes" its images, recall (the same accuracy), precision and F1.
        """
        names = self.class_names
        unique = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
        classes = {name: _rounded(scores) for name, scores in zip(unique, self.classes, strict=True)}
        rounded = {"loss": round(self.loss, 5), "top1": round(self.top1, 3), "top5": round(self.top5, 3)}
        return {
            **rounded,
            "balanced": round(self.balanced, 3),
            "images": self.images,
            "no_better_than": self.no_better_than,
            "per_class": {name: scores["recall"] for name, scores in classes.items()},
            "classes": classes,
        }


def _rounded(scores: ClassScores) -> dict[str, float | None]:
    """The scores of a class under plain names, to two places."""
    return {key: value if value is None else round(value, 2) for key, value in scores._asdict().items()}


@torch.inference_mode()
def accuracy_of(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "float32",
    names: Names = lambda batch: (),
) -> Evaluation:
    """Return the accuracy of `model`, over all processes together.

    Args:
        model: images (N, 3, S, S) -> logits (N, classes).
        loader: batches of images and labels (N,) on the device; of each process its share.
        device: where `model` is.
        precision: "float32", "bf16" or "fp16".
        names: what the images of a batch are called, by its number.
    """
    model.eval()
    worst = Worst()
    with together():
        sums, pairs = _tally(model, loader, device, precision, worst)
    loss, top5, count = sum_over_processes(sums).tolist()
    if count == 0:
        raise InputError("there are no images to evaluate on")
    confusion: Counter[tuple[int, int]] = Counter()
    for part in gather(pairs):
        confusion.update(part)
    shares = (100 * right_of(confusion) / count, 100 * top5 / count)
    return Evaluation(
        loss / count, *shares, int(count), dict(sorted(confusion.items())), worst.mistakes(names)
    )


def _tally(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str,
    worst: Worst,
) -> tuple[Tensor, dict[tuple[int, int], int]]:
    """Of this process: the sums of loss, top-5 hits and images, and how often which class is taken for which."""
    sums = torch.zeros(3, dtype=_sum_dtype(device), device=device)
    pairs = [torch.empty(0, 2, dtype=torch.int64, device=device)]
    for batch, (images, labels) in enumerate(loader):
        with autocast(device, precision):
            logits = model(images)
        logits = logits.to(sums.dtype)
        losses = F.cross_entropy(logits, labels, reduction="none")
        best = logits.topk(min(5, logits.shape[1])).indices
        hits = (best == labels[:, None]).sum()
        sums += torch.stack([losses.sum(), hits.to(sums.dtype), torch.full_like(sums[0], len(labels))])
        pairs.append(torch.stack([labels, best[:, 0]], 1))
        worst.add(batch, images, labels, logits, losses)
    found, counts = torch.cat(pairs).cpu().unique(dim=0, return_counts=True)
    return sums, {
        (label, guess): n for (label, guess), n in zip(found.tolist(), counts.tolist(), strict=True)
    }


def _sum_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def evaluation_loader(
    images: Images | StreamImages,
    finish: Finish,
    batch_size: int,
    workers: int,
    process: Process,
    resident: Moves | None = None,
) -> Loader:
    """This process's share of `images`, every one once over all processes; unreadable ones are refused."""
    settings = LoaderSettings(
        batch_size=batch_size,
        train=False,
        workers=workers,
        rank=process.rank,
        world_size=process.world_size,
        skip_bad=False,
        resident=resident,
    )
    return make_loader(images, plain_transform(finish.preprocessing), finish, settings)


def evaluate(
    network: Classifier | str | Path,
    data: str | DataSource | None = None,
    *,
    split: str | Path | None = None,
    part: str = "val",
    batch_size: int = 128,
    workers: int = 0,
    device: str = "auto",
) -> Evaluation:
    """Measure top-1, top-5, balanced accuracy, loss and the scores of every class on validation or test images.

    This is `igcv evaluate`.

    Under torchrun the processes share the images.

    Args:
        network: a classifier, which stays as it is, or what `igcv.load` opens.
        data: a data source, as for `igcv.data.open_source`; None: that of the training run.
        split: a list of the images as a CSV file, instead of that of the training run.
        part: the images to measure on: "val"; "test" for the final accuracy; "train" for those that it learned from.
        batch_size: images at a time, per process.
        workers: processes that decode images; 0 decodes in this one.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".

    Raises:
        InputError: if network or data cannot be opened or do not fit each other, or for an unreadable image.
    """
    with process_group(device) as process:
        with together():
            classifier = as_classifier(network, process.device)
        source = (
            data
            if isinstance(data, DataSource)
            else first_on_machine(process, lambda: classifier.open_data(data, split=split))
        )
        return evaluate_in(process, classifier, source, batch_size=batch_size, workers=workers, part=part)


def evaluate_in(
    process: Process,
    classifier: Classifier,
    source: DataSource,
    *,
    batch_size: int,
    workers: int = 0,
    part: str = "val",
) -> Evaluation:
    """`evaluate` in a process that has joined the others."""
    images = source.part(part)
    if len(source.class_names) != classifier.card.num_classes:
        raise InputError(
            f"{source.spec} has {len(source.class_names)} classes, the network {classifier.card.num_classes}; "
            "evaluate it on the classes it was trained for"
        )
    finish = Finish(classifier.preprocessing, process.device)
    loader = evaluation_loader(images, finish, batch_size, workers, process)
    network = classifier.model
    if isinstance(network, Network):  # the caller's own keeps its device and forms
        network = deepcopy(network).to(process.device)
        set_form(network)
    found = accuracy_of(network, loader, process.device, names=loader.names)
    names = tuple(classifier.class_names)
    return replace(found, data=source.spec, data_name=source.name, class_names=names, notes=source.notes)
