"""Comparison of an int8 file with a float32 file: accuracy, agreement, size and latency."""

import tempfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import torch

from igcv.classifier import Classifier, load
from igcv.data import DataSource, Finish
from igcv.deploy.latency import LatencyEntry, ratios, time_networks
from igcv.deploy.samples import sample_pixels
from igcv.deploy.write import write_compared
from igcv.deploy.writers.settings import ExportSettings
from igcv.engines.opened import open_session, size_of
from igcv.evaluation.accuracy import evaluate

AGREEMENT_IMAGES = 1000


def beside_float32(
    classifier: Classifier, out: Path, settings: ExportSettings, source: DataSource | None
) -> dict[str, Any]:
    """Compare an int8 file with a float32 file of the same network.

    The float32 file uses the form of `settings`; "auto" measures the forms again, in float32.

    Returns:
        "bytes", "top1" (percent, None without validation images) and "median_ms" of both files; "time_ratio", int8
        to float32; "images", the number of validation images; and "agreement", the fraction of these images with the
        same top-1 class (at most `AGREEMENT_IMAGES`; None without validation images).
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = Path(folder) / f"float{out.suffix}"
        write_compared(
            classifier,
            plain,
            replace(settings, int8=False),
            sample_pixels(source, classifier.preprocessing, 4),
        )
        sizes = [size_of(file) for file in (plain, out)]
        side = classifier.card.input_size
        shape = (side, side, 3) if settings.with_preprocessing else (3, side, side)
        threads = settings.threads or torch.get_num_threads()
        entries = [
            LatencyEntry(
                label, partial(open_session, file, None, threads), shape, settings.with_preprocessing
            )
            for label, file in (("float32", plain), ("int8", out))
        ]
        float32, int8 = time_networks(entries, settings.batch_size, threads)
        opened = [load(file) for file in (plain, out)]
        top1 = [_top1(network, source) for network in opened]
        seen = source is not None and source.val is not None
        agreement = agreement_of(opened[0], opened[1], source) if seen else None
    time_ratio, low, high = ratios(int8, float32)
    return {
        "bytes": dict(zip(("float32", "int8"), sizes, strict=True)),
        "top1": dict(zip(("float32", "int8"), top1, strict=True)),
        "median_ms": {"float32": median(float32.times_ms), "int8": median(int8.times_ms)},
        "time_ratio": {"median": time_ratio, "low": low, "high": high},
        "agreement": agreement,
        "images": len(source.val) if source and source.val is not None else 0,
    }


def _top1(network: Classifier, source: DataSource | None) -> float | None:
    if source is None or source.val is None:
        return None
    return evaluate(network, source, batch_size=64, device="cpu").top1


def agreement_of(first: Classifier, second: Classifier, source: DataSource | None) -> float:
    """Return the fraction of images, out of at most `AGREEMENT_IMAGES`, with the same top-1 class."""
    pixels = torch.from_numpy(sample_pixels(source, first.preprocessing, AGREEMENT_IMAGES))
    finish = Finish(first.preprocessing)
    batches = pixels.permute(0, 3, 1, 2).split(64)
    alike = [first.model(x).argmax(1) == second.model(x).argmax(1) for x in map(finish, batches)]
    return float(torch.cat(alike).float().mean())
