"""Accuracy and loss of a network on a set of images."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igcv.classifier import Classifier, as_classifier
from igcv.data import DataSource, Finish, Images, Loader, LoaderSettings, Moves, StreamImages, make_loader
from igcv.data.classes import NAME
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
from igcv.machine.memory import keep_freed_memory
from igcv.machine.processes import (
    Process,
    first_on_machine,
    gather,
    process_group,
    sum_over_processes,
    together,
)
from igcv.models import Network, set_form

TOP = 5  # k of the top-k accuracy that complements top-1


@dataclass(frozen=True)
class Evaluation:
    """Evaluation results: metrics over all images, and per class."""

    loss: float  # mean cross-entropy in nats
    top1: float  # percent
    top5: float | None  # percent; None for five or fewer classes, where it is meaningless
    images: int  # number of images
    confusion: dict[tuple[int, int], int]  # (class, predicted class): number of images, without zeros
    mistakes: list[Mistake]  # up to 24 misclassified images, highest loss first
    data: str = ""  # spec of the data, as for --data
    class_names: tuple[str, ...] = ()  # in label order
    notes: tuple[str, ...] = ()  # messages about the split into parts and the engine, one line each
    precision: str = "float32"  # of the arithmetic; int8 for a quantized file
    data_name: str = ""  # short name of the data

    @property
    def balanced(self) -> float:
        """Balanced accuracy in percent: the mean recall of the classes that have images."""
        return balanced_accuracy(self.confusion)

    @property
    def classes(self) -> list[ClassScores]:
        """Images, recall, precision and F1 of every class, in label order."""
        return class_scores(self.confusion, len(self.class_names))

    @property
    def no_better_than(self) -> str | None:
        """The class that is as good as a constant prediction; None if the network is better."""
        answer = constant_answer(self.confusion)
        return None if answer is None else (self.class_names[answer] if self.class_names else str(answer))

    @property
    def note(self) -> str:
        """A line that says that the network is no better than a constant prediction; empty if the network is better."""
        return constant_note(self.confusion, self.class_names)

    def as_dict(self) -> dict[str, Any]:
        """Return the metrics as a dictionary ready for JSON, with the metrics of classes in percent by class name.

        "per_class" has the accuracy of each class. "classes" has its number of images, recall (equal to the accuracy),
        precision and F1.
        """
        names = self.class_names
        unique = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
        classes = {name: _rounded(scores) for name, scores in zip(unique, self.classes, strict=True)}
        top5 = {} if self.top5 is None else {"top5": round(self.top5, 3)}
        return {
            "loss": round(self.loss, 5),
            "top1": round(self.top1, 3),
            **top5,
            "balanced": round(self.balanced, 3),
            "images": self.images,
            "precision": self.precision,
            "no_better_than": self.no_better_than,
            "per_class": {name: scores["recall"] for name, scores in classes.items()},
            "classes": classes,
        }


def _rounded(scores: ClassScores) -> dict[str, float | None]:
    """Return the scores of a class as a dictionary, rounded to two decimal places."""
    return {key: value if value is None else round(value, 2) for key, value in scores._asdict().items()}


class NotFiniteError(InputError):
    """Error for a network with non-finite logits (NaN or Inf)."""


@torch.inference_mode()
def accuracy_of(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    names: Names = lambda batch: (),
) -> Evaluation:
    """Measure the accuracy of `model` in float32 over the images of all processes.

    Args:
        model: images (N, 3, S, S) -> logits (N, classes).
        loader: batches of images and labels (N,) on the device; each process has its share of the images.
        device: device of `model`.
        names: function that returns the names of the images in a batch, by the batch's number.

    Raises:
        InputError: there are no images.
        NotFiniteError: a logit is NaN or Inf.
    """
    model.eval()
    worst = Worst()
    with together():
        sums, pairs = _tally(model, loader, device, worst)
    loss, top5, broken, ranked, count = sum_over_processes(sums).tolist()
    if count == 0:
        raise InputError("there are no images to evaluate on")
    if broken:
        raise NotFiniteError(
            f"non-finite logits for {broken:,.0f} of {count:,.0f} images, so the network is unusable"
        )
    confusion: Counter[tuple[int, int]] = Counter()
    for part in gather(pairs):
        confusion.update(part)
    return Evaluation(
        loss=loss / count,
        top1=100 * right_of(confusion) / count,
        top5=100 * top5 / ranked if ranked else None,
        images=int(count),
        confusion=dict(sorted(confusion.items())),
        mistakes=worst.mistakes(names),
    )


def _tally(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    worst: Worst,
) -> tuple[Tensor, dict[tuple[int, int], int]]:
    """Return sums over the images of this process, and its confusion matrix.

    The sums are: loss, top-5 hits, images with non-finite logits, images for which top-5 accuracy is meaningful, and
    all images.
    """
    ranked = count = 0
    sums = torch.zeros(3, dtype=_sum_dtype(device), device=device)
    pairs = [torch.empty(0, 2, dtype=torch.int64, device=device)]
    for batch, (images, labels) in enumerate(loader):
        logits = model(images).to(sums.dtype)
        losses = F.cross_entropy(logits, labels, reduction="none")
        best = logits.topk(min(TOP, logits.shape[1])).indices
        hits = (best == labels[:, None]).sum()
        broken = (~logits.isfinite().all(1)).sum()
        sums += torch.stack([losses.sum(), hits, broken])
        ranked += len(labels) if logits.shape[1] > TOP else 0
        count += len(labels)
        pairs.append(torch.stack([labels, best[:, 0]], 1))
        worst.add(batch, images, labels, logits, losses)
    sums = torch.cat([sums, sums.new_tensor([ranked, count])])
    found, counts = torch.cat(pairs).cpu().unique(dim=0, return_counts=True)
    return sums, {
        (label, guess): n for (label, guess), n in zip(found.tolist(), counts.tolist(), strict=True)
    }


def _sum_dtype(device: torch.device) -> torch.dtype:
    """Return float64, or float32 on Apple GPUs, which do not support float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def evaluation_loader(
    images: Images | StreamImages,
    finish: Finish,
    batch_size: int,
    workers: int,
    process: Process,
    resident: Moves | None = None,
) -> Loader:
    """Create a loader of this process's share of `images`, each once over all processes; unreadable images raise."""
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


def _counted(
    batches: Iterable[tuple[Tensor, Tensor]], images: int, progress: Callable[[int, int], None]
) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield batches and report the number of finished images."""
    done = 0
    for batch in batches:
        yield batch
        done += len(batch[1])
        progress(min(done, images), images)


def evaluate(
    network: Classifier | str | Path,
    data: str | DataSource | None = None,
    *,
    split: str | Path | None = None,
    part: str = "val",
    match: str = NAME,
    batch_size: int = 128,
    workers: int = 0,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Measure top-1, top-5 and balanced accuracy, loss and the scores of every class, as `igcv evaluate` does.

    Under torchrun, the processes share the images.

    Args:
        network: a classifier, which stays unchanged, or anything that `igcv.load` opens.
        data: a data source, as for `igcv.data.open_source`; None: the data of the training run.
        split: CSV file with a list of the images; None: the list of the training run, if any.
        part: the images to evaluate: "val", "test" (final accuracy) or "train".
        match: how to match the classes of the data with the network's classes: by "name", in any order, where the data
            may lack classes, or by "order".
        batch_size: images per batch and process.
        workers: number of data-loading workers per process; 0 decodes images in the process itself.
        device: "auto", "cpu", "cuda", "cuda:N" or "mps".
        progress: callback after each batch, with the number of finished images and of all images of this process.

    Raises:
        InputError: network or data cannot be opened or do not match, or an image is unreadable.
    """
    with process_group(device) as process:
        with together():
            classifier = as_classifier(network, process.device)
        source = (
            data
            if isinstance(data, DataSource)
            else first_on_machine(process, lambda: classifier.open_data(data, split=split))
        )
        source = classifier.labeled(source, match)
        return evaluate_in(
            process, classifier, source, batch_size=batch_size, workers=workers, part=part, progress=progress
        )


def evaluate_in(
    process: Process,
    classifier: Classifier,
    source: DataSource,
    *,
    batch_size: int,
    workers: int = 0,
    part: str = "val",
    progress: Callable[[int, int], None] | None = None,
) -> Evaluation:
    """Run `evaluate` in an initialized process group, on a source with the network's labels."""
    if process.device.type == "cpu":
        keep_freed_memory()
    images = source.part(part)
    finish = Finish(classifier.preprocessing, process.device)
    loader = evaluation_loader(images, finish, batch_size, workers, process)
    network = classifier.model
    if isinstance(network, Network):  # the caller's network keeps its device and forms
        network = deepcopy(network).to(process.device)
        set_form(network)
    batches = loader if progress is None else _counted(loader, len(images) // process.world_size, progress)
    found = accuracy_of(network, batches, process.device, names=loader.names)
    names = tuple(classifier.class_names)
    int8 = classifier.card.source.get("export", {}).get("int8", False)
    precision = "int8" if int8 else "float32"
    return replace(
        found,
        data=source.spec,
        data_name=source.name,
        class_names=names,
        notes=(*source.notes, *filter(None, [classifier.note])),
        precision=precision,
    )
