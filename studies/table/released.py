"""Released weights: reduction to float16, and evaluation."""

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
from studies.table.plan import DATA_SETS

CPU = Process(torch.device("cpu"))


def release(run: Path, name: str, folder: Path, data: str | None = None) -> tuple[Path, Card]:
    """Release the weights after the last epoch of a run; validation images have not selected this epoch.

    Weights of convolutions and of the classifier are stored in float16 if this costs no accuracy, otherwise in float32.

    Args:
        run: run folder.
        name: data set name in the file name.
        folder: folder of the file NETWORK.NAME.safetensors.
        data: data set for the evaluation. None: the data set of the run.

    Returns:
        The file and its card.

    Raises:
        InputError: if the run is not complete, or the file exists.
    """
    if not (run / SUMMARY).is_file():
        raise InputError(f"run: got '{run}', expected a complete run. Resume the run first.")
    tensors, card = load_weights(run / LAST)
    target = folder / f"{card.model}.{name}.safetensors"
    if target.exists():
        raise InputError(f"file exists: '{target}'. Remove the file to release these weights again.")
    folder.mkdir(exist_ok=True)
    save_weights(target, tensors, card)
    full = accuracy_of(target, data)
    kind = "float32"
    save_weights(target, halved(tensors), card)
    if (half := accuracy_of(target, data)).top1 >= full.top1:
        full, kind = half, "float16"
    recipe = card.recipe | {"data": public_spec(name, card.recipe["data"])}
    results = {"top1": full.top1, "top5": full.top5, "images": full.images, "data": name, "stored": kind}
    card = replace(card, recipe=recipe, results=results | {"epoch": card.results["epoch"]})
    save_weights(target, tensors if kind == "float32" else halved(tensors), card)
    return target, card


def public_spec(name: str, given: str) -> str:
    """Return the data source of a public data set by name, without folders of this machine, else the given one."""
    return next((data.spec for data in DATA_SETS if data.name == name), given)


def halved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights in float16. Batch norms stay in float32, because their variances may exceed float16."""
    return {name: t.half() if t.ndim > 1 and t.is_floating_point() else t for name, t in tensors.items()}


def accuracy_of(file: Path, data: str | None = None) -> Evaluation:
    """Evaluate released weights on the data set in their card, or on `data`."""
    classifier = load(file)
    source = classifier.labeled(classifier.open_data(data))
    return evaluate_in(CPU, classifier, source, batch_size=128)
