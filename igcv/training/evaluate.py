"""Accuracy and loss of a network on a set of images."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igcv.classifier import Classifier
from igcv.data import DataSource, Finish, Images, Loader, Moves, StreamImages, make_loader, plain_transform
from igcv.errors import InputError
from igcv.models import set_form
from igcv.report import images_of
from igcv.training.distributed import Process, gather, sum_over_processes, together
from igcv.training.mistakes import Mistake, Names, Worst
from igcv.training.precision import autocast


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation: counts over all images, and per class."""

    loss: float  # mean cross-entropy in nats
    top1: float  # percent
    top5: float  # percent
    images: int
    confusion: dict[tuple[int, int], int]  # (class, most probable class): images, where there are any
    mistakes: list[Mistake]  # the worst first, a few

    def as_dict(self, class_names: Iterable[str]) -> dict[str, Any]:
        """The figures under plain names, per-class accuracy in percent under the class names."""
        names = list(class_names)
        unique = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
        total = images_of(self.confusion)
        per_class = {
            name: round(100 * self.confusion.get((i, i), 0) / total[i], 2) if i in total else None
            for i, name in enumerate(unique)
        }
        rounded = {"loss": round(self.loss, 5), "top1": round(self.top1, 3), "top5": round(self.top5, 3)}
        return {**rounded, "images": self.images, "per_class": per_class}


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    device: torch.device,
    precision: str = "float32",
    names: Names = lambda batch: (),
) -> Evaluation:
    """Evaluate `model`, over all processes together.

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
    right = sum(images for (label, guess), images in confusion.items() if label == guess)
    shares = (100 * right / count, 100 * top5 / count)
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
    return make_loader(
        images,
        plain_transform(finish.preprocessing),
        batch_size,
        finish=finish,
        train=False,
        seed=0,
        workers=workers,
        rank=process.rank,
        world_size=process.world_size,
        skip_bad=False,
        resident=resident,
    )


def evaluate_classifier(
    classifier: Classifier, source: DataSource, *, batch_size: int, workers: int, process: Process
) -> Evaluation:
    """Evaluate a trained network on the validation part of a data source; unreadable images are refused."""
    if source.val is None:
        raise InputError(f"{source.spec} has no validation images; give a source with a validation part")
    if len(source.class_names) != classifier.card.num_classes:
        raise InputError(
            f"{source.spec} has {len(source.class_names)} classes, the network {classifier.card.num_classes}; "
            "evaluate it on the classes it was trained for"
        )
    finish = Finish(classifier.preprocessing, process.device)
    loader = evaluation_loader(source.val, finish, batch_size, workers, process)
    network = classifier.model.to(process.device)
    set_form(network)
    return evaluate(network, loader, process.device, names=loader.names)
