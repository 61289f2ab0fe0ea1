"""Released weights: made small, measured again, and checked."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from igcv.classifier import LAST, load
from igcv.errors import InputError
from igcv.evaluation.accuracy import Evaluation, evaluate_in
from igcv.machine.processes import Process
from igcv.training.run import SUMMARY
from igcv.weights import load_weights, save_weights
from igcv.weights.card import Card

CPU = Process(torch.device("cpu"))


def release(run: Path, name: str, folder: Path, data: str | None = None) -> tuple[Path, Card]:
    """Release the weights after a run's last epoch, not its best: those the validation images have not chosen.

    Weights of convolutions and of the classifier are stored in float16 if that costs no accuracy, else in float32.

    Args:
        run: the run folder.
        name: of the data, part of the file's name.
        folder: where the file goes, as NETWORK.NAME.safetensors.
        data: the images to measure on; None: those of the run.
    """
    if not (run / SUMMARY).is_file():
        raise InputError(f"the run in {run} has not ended; resume it first")
    tensors, card = load_weights(run / LAST)
    target = folder / f"{card.model}.{name}.safetensors"
    if target.exists():
        raise InputError(f"{target} exists already; remove it to release anew")
    folder.mkdir(exist_ok=True)
    save_weights(target, tensors, card)
    full = accuracy_of(target, data)
    kind = "float32"
    save_weights(target, halved(tensors), card)
    if (half := accuracy_of(target, data)).top1 >= full.top1:
        full, kind = half, "float16"
    results = {"top1": full.top1, "top5": full.top5, "images": full.images, "data": name, "stored": kind}
    card = replace(card, results=results | {"epoch": card.results["epoch"]})
    save_weights(target, tensors if kind == "float32" else halved(tensors), card)
    return target, card


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Weights in float16; batch norms, whose variances may not fit, as they are."""
    return {name: t.half() if t.ndim > 1 and t.is_floating_point() else t for name, t in tensors.items()}


def accuracy_of(file: Path, data: str | None = None) -> Evaluation:
    """The accuracy of released weights, on the images that their card names or on others."""
    classifier = load(file)
    source = classifier.labelled(classifier.open_data(data))
    return evaluate_in(CPU, classifier, source, batch_size=128)
