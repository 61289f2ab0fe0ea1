"""Images per second of `igcv.predict` in batches, with decoding in parallel, and of one image at a time.

Both methods decode, resize and classify the same files with the same weights, alternately. The predictions must agree.

    OMP_NUM_THREADS=1 python studies/benchmarks/predict.py FOLDER
"""

import argparse
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch

import igcv
from igcv.classifier import Classifier
from igcv.data.preprocessing import IMAGENET
from igcv.data.sources.folders import image_files
from igcv.terminal import counted
from igcv.weights.card import Card
from studies.benchmarks.conditions import host_and_versions
from studies.benchmarks.spreads import spread

ALONE, BATCHES = "one image at a time", "igcv.predict, batches of {}"
Answers = list[tuple[str, float]]  # class and probability of each image


def main() -> None:
    """Measure both methods alternately, print a table, and write the table with the conditions."""
    given = parse()
    files = image_files(given.folder)
    result = {
        "rates": rates(classifier_of(given.network), files, given.batch_size, given.rounds),
        "network": given.network,
        "images": len(files),
        "batch_size": given.batch_size,
        "torch_threads": torch.get_num_threads(),
        "machine": host_and_versions(),
    }
    text = page(result)
    print(text)
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.with_suffix(".md").write_text(f"# Images per second of igcv predict\n\n{text}")
    given.out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images, searched recursively")
    parser.add_argument(
        "--network", default="igcv3_d_100", help="network, with random weights (default: igcv3_d_100)"
    )
    parser.add_argument("--batch-size", type=int, default=32, help="images per batch (default: 32)")
    parser.add_argument("--rounds", type=int, default=5, help="measurement rounds (default: 5)")
    default = Path(__file__).parent / "results" / "predict"
    parser.add_argument(
        "--out", type=Path, default=default, help="results file without suffix (default: results/predict)"
    )
    return parser.parse_args()


def classifier_of(name: str) -> Classifier:
    """Return a classifier with random weights and ImageNet's preprocessing."""
    torch.manual_seed(0)
    network = igcv.create_model(name, 1000).eval()
    card = Card(
        model=name,
        num_classes=1000,
        input_size=IMAGENET.input_size,
        strides=network.strides,
        preprocessing=IMAGENET.to_dict(),
    )
    return Classifier(network, card)


def rates(
    classifier: Classifier, files: Sequence[str], batch_size: int, rounds: int
) -> dict[str, list[float]]:
    """Return the images per second of each method in each round, without the warm-up round."""
    ways: dict[str, Callable[[], Answers]] = {
        ALONE: lambda: [best(classifier.predict([file], top=1)[0]) for file in files],
        BATCHES.format(batch_size): lambda: [
            best(entry.predictions)
            for entry in igcv.predict(classifier, files, top=1, device="cpu", batch_size=batch_size)
        ],
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds + 1):
        answers = {}
        for name, way in ways.items():
            begun = time.perf_counter()
            answers[name] = way()
            found[name].append(len(files) / (time.perf_counter() - begun))
        check_same(*answers.values())
    return {name: [round(rate, 2) for rate in measured[1:]] for name, measured in found.items()}


def best(predictions: Sequence[igcv.Prediction]) -> tuple[str, float]:
    """Return the most probable class and its probability."""
    return predictions[0].name, predictions[0].probability


def check_same(first: Answers, second: Answers) -> None:
    """Assert that two methods predict the same probabilities, so that their speeds are comparable."""
    for (_, one), (_, other) in zip(first, second, strict=True):
        assert math.isclose(one, other, rel_tol=1e-3), (one, other)


def page(result: dict[str, Any]) -> str:
    """Return the rates as a table with their conditions."""
    alone = result["rates"][ALONE]
    rows = [
        f"| {name} | {spread(measured)} | {spread([b / a for b, a in zip(measured, alone, strict=True)], 2)} |"
        for name, measured in result["rates"].items()
    ]
    conditions = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    return "\n".join(
        [
            "| method | images/s | speedup |",
            "|---|---:|---:|",
            *rows,
            "",
            f"Median (min to max) of {len(alone)} interleaved rounds; ratios are taken within each round. "
            f"{result['network']}, {result['images']} images, PyTorch on the CPU with "
            f"{counted(result['torch_threads'], 'thread')}; decoding included.",
            "",
            conditions,
            "",
        ]
    )


if __name__ == "__main__":
    main()
