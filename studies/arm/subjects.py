"""Networks of the study with weights and images."""

from typing import NamedTuple

import numpy as np
import torch
from torch import nn

import igcv
from igcv.classifier import Classifier
from igcv.data import DataSource
from igcv.data.preprocessing import CIFAR, IMAGENET
from igcv.deploy.samples import normalized, sample_pixels
from igcv.models import Network, build_model
from igcv.weights.card import Card
from studies.arm.plan import RELEASED, SMALL, Subject
from studies.benchmarks.networks import classes

CALIBRATED = 16  # images for batch norm statistics and int8 ranges


class Prepared(NamedTuple):
    """A classifier with its images.

    Attributes:
        classifier: the network.
        pixels: images of the comparison, uint8 (N, S, S, 3).
        inputs: the same images as network input, float32 (N, 3, S, S).
        calibration: images for int8 ranges, uint8 (N, S, S, 3).
    """

    classifier: Classifier
    pixels: np.ndarray
    inputs: np.ndarray
    calibration: np.ndarray


def prepared(subject: Subject, photos: DataSource | None) -> Prepared:
    """Return the classifier of a subject with photographs as images; None: two photographs of scikit-learn."""
    classifier = igcv.load(RELEASED) if subject.network == RELEASED else with_random_weights(subject)
    pre = classifier.preprocessing
    calibration = sample_pixels(photos, pre, CALIBRATED)
    if subject.network != RELEASED:
        set_statistics(classifier.model, torch.from_numpy(normalized(calibration, pre)))
    pixels = sample_pixels(photos, pre, subject.images)
    return Prepared(classifier, pixels, normalized(pixels, pre), calibration)


def with_random_weights(subject: Subject) -> Classifier:
    """Return a classifier with the seeded initial weights of a network."""
    torch.manual_seed(0)
    model: Network = build_model(subject.network, classes(subject.size), input_size=subject.size)
    card = Card(
        model=subject.network,
        num_classes=classes(subject.size),
        input_size=subject.size,
        strides=model.strides,
        preprocessing=(CIFAR if subject.size == SMALL else IMAGENET).to_dict(),
    )
    return Classifier(model.eval(), card)


@torch.no_grad()
def set_statistics(model: nn.Module, images: torch.Tensor) -> None:
    """Set the batch norm statistics of a network to those of some images.

    With other statistics, a deep network of random weights amplifies rounding errors.
    """
    for norm in (module for module in model.modules() if isinstance(module, nn.BatchNorm2d)):
        norm.reset_running_stats()
        norm.momentum = None  # average over all batches, which is a single one
    model.train()
    model(images)
    model.eval()
