"""Accuracy and loss of a network on a set of images."""

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from igcv.classifier import Classifier
from igcv.data import DataSource, Finish, Images, Loader, Moves, StreamImages, make_loader, plain_transform
from igcv.errors import InputError
from igcv.models import set_form
from igcv.training.distributed import Process, sum_over_processes, together

AUTOCAST = {"float32": None, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Evaluation:
    """What came out of an evaluation: counts over all images, and per class."""

    loss: float  # mean cross-entropy in nats
    top1: float  # percent
    top5: float  # percent
    images: int
    correct_per_class: list[int]
    images_per_class: list[int]

    def as_dict(self, class_names: Iterable[str]) -> dict[str, Any]:
        """The figures under plain names, per-class accuracy in percent under the class names."""
        names = list(class_names)
        unique = [name if names.count(name) == 1 else f"{name} ({i})" for i, name in enumerate(names)]
        per_class = {
            name: round(100 * right / total, 2) if total else None
            for name, right, total in zip(unique, self.correct_per_class, self.images_per_class, strict=True)
        }
        rounded = {"loss": round(self.loss, 5), "top1": round(self.top1, 3), "top5": round(self.top5, 3)}
        return {**rounded, "images": self.images, "per_class": per_class}


def autocast(device: torch.device, precision: str) -> AbstractContextManager:
    """The context in which a forward pass uses the recipe's precision."""
    dtype = AUTOCAST[precision]
    return torch.autocast(device.type, dtype) if dtype else nullcontext()


@torch.inference_mode()
def evaluate(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    device: torch.device,
    precision: str = "float32",
) -> Evaluation:
    """Evaluate `model`, over all processes together.

    Args:
        model: images (N, 3, S, S) -> logits (N, num_classes).
        loader: batches of images and labels (N,) on the device; of each process its share.
        num_classes: outputs of the network.
        device: where `model` is.
        precision: "float32", "bf16" or "fp16".
    """
    model.eval()
    with together():
        totals = _totals(model, loader, num_classes, device, precision)
    loss, top5, count, *per_class = sum_over_processes(totals).tolist()
    if count == 0:
        raise InputError("there are no images to evaluate on")
    right = [int(n) for n in per_class[:num_classes]]
    seen = [int(n) for n in per_class[num_classes:]]
    return Evaluation(loss / count, 100 * sum(right) / count, 100 * top5 / count, int(count), right, seen)


def _totals(
    model: nn.Module,
    loader: Iterable[tuple[Tensor, Tensor]],
    num_classes: int,
    device: torch.device,
    precision: str,
) -> Tensor:
    """The sums over the images of this process: (3 + 2 * num_classes,)."""
    # [loss, top-5 hits, images, hits of each class, images of each class], summed
    totals = torch.zeros(3 + 2 * num_classes, dtype=_sum_dtype(device), device=device)
    for images, labels in loader:
        with autocast(device, precision):
            logits = model(images)
        totals += _counts(logits.to(totals.dtype), labels)
    return totals


def _sum_dtype(device: torch.device) -> torch.dtype:
    """float64, or float32 on Apple's GPUs, which have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


def _counts(logits: Tensor, labels: Tensor) -> Tensor:
    """The sums of one batch: (3 + 2 * classes,)."""
    classes = logits.shape[1]
    hits = logits.topk(min(5, classes)).indices == labels[:, None]
    loss = F.cross_entropy(logits, labels, reduction="sum")
    scalars = torch.stack([loss, hits.sum().to(loss.dtype), torch.full_like(loss, len(labels))])
    right = torch.bincount(labels[hits[:, 0]], minlength=classes)
    seen = torch.bincount(labels, minlength=classes)
    return torch.cat([scalars, right.to(loss.dtype), seen.to(loss.dtype)])


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
    return evaluate(network, loader, classifier.card.num_classes, process.device)
