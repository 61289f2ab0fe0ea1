"""Expected cost of ImageNet trainings: hours, memory and decoding cores, from training steps measured at 224 pixels.

The steps are those of training.py: random images on the device, forward, backward and SGD, for several batch sizes
alternately. All other numbers are computed: epochs times 1,281,167 images divided by the images per second. For
several GPUs, the page assumes linear scaling: the 3.5 M gradients are sent during the backward pass. The loss on a real
cluster is not measured.

    python studies/benchmarks/imagenet.py --device cuda
"""

import argparse
import json
from math import ceil
from pathlib import Path
from statistics import median
from typing import Any

from igcv.training import Recipe, load_recipe
from studies.benchmarks.conditions import host_and_versions
from studies.benchmarks.spreads import spread
from studies.benchmarks.training_entries import TrainingEntry
from studies.benchmarks.training_steps import time_steps

RESULTS = Path(__file__).parent / "results"
RECIPES = Path(__file__).parents[2] / "recipes"
IMAGES, SIDE = 1_281_167, 224  # images of ImageNet's training set; pixels
STAGES = ("imagenet_mxnet", "imagenet_retrain", "imagenet_300")
DEVICES = (1, 8, 64)
BATCHES = {"cpu": (4, 16), "cuda": (96, 256, 512, 1024)}


def full_epochs(recipe: Recipe) -> float:
    """Return the number of epochs at full size with the same cost. Epochs on smaller images count by their pixels."""
    sizes = (recipe.size_at(epoch) or SIDE for epoch in range(recipe.epochs))
    return sum((size / SIDE) ** 2 for size in sizes)


def hours(epochs: float, images_per_s: float, devices: int) -> float:
    """Return the hours of training with linear scaling over devices; `epochs` are at full size."""
    return epochs * IMAGES / (images_per_s * devices) / 3600


def page(result: dict[str, Any]) -> str:
    """Return the results as Markdown."""
    rows, per_core = result["rows"], result["decoded_per_core"]
    fastest = max(rows, key=lambda row: median(row["rates"]))
    rate = median(fastest["rates"])
    device = {"cuda": "GPU", "cpu": "CPU"}[fastest["device"]]
    conditions = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    lines = [
        "# Expected cost of ImageNet trainings",
        "",
        f"IGCV3-D 1.0x at 224 pixels, {result['precision']}. Written by `python studies/benchmarks/imagenet.py`. "
        f"{conditions}.",
        "",
        "## Measured steps",
        "",
        "| batch size | images/s | peak memory, MiB |",
        "|---:|---:|---:|",
        *(f"| {row['batch']} | {spread(row['rates'])} | {row['memory_mib']:,} |" for row in rows),
        "",
        f"## Expected hours of training, at the fastest batch size: {rate:,.1f} images/s on one device",
        "",
        f"| recipe | epochs | {' | '.join(f'{n} {device}' + 's' * (n > 1) for n in DEVICES)} |",
        f"|---|---:|{'---:|' * len(DEVICES)}",
    ]
    for stage in STAGES:
        recipe = load_recipe(RECIPES / f"{stage}.toml")
        expected = (hours(full_epochs(recipe), rate, devices) for devices in DEVICES)
        times = " | ".join(f"{time:,.{0 if time >= 100 else 1}f}" for time in expected)
        lines.append(f"| [{stage}](../../../recipes/{stage}.toml) | {recipe.epochs} | {times} |")
    lines += [
        "",
        f"Each {device} is assumed to be as fast as the measured one, and several to scale linearly. Epochs on smaller "
        "images (progressive resizing) count by their pixels.",
        "",
        "## Cores needed to decode the images",
        "",
        f"One core decodes and augments {per_core:,.0f} images per second ([measurement](data.md)).",
        "",
        f"| {device}s | images/s | cores |",
        "|---:|---:|---:|",
        *(f"| {n} | {rate * n:,.0f} | {ceil(rate * n / per_core):,} |" for n in DEVICES),
    ]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=sorted(BATCHES), default="cpu", help="device (default: cpu)")
    parser.add_argument("--rounds", type=int, default=5, help="measurement rounds (default: 5)")
    parser.add_argument("--threads", type=int, default=2, help="CPU threads (default: 2)")
    parser.add_argument("--out", type=Path, default=RESULTS, help="results folder (default: results)")
    given = parser.parse_args()
    entered = [
        TrainingEntry("igcv3_d_100", 224, batch, "auto", device=given.device)
        for batch in BATCHES[given.device]
    ]
    data = json.loads((RESULTS / "data.json").read_text())
    result = {
        "machine": host_and_versions(given.device),
        "precision": "bf16" if given.device == "cuda" else "float32",
        "decoded_per_core": data["figures"]["igcv"]["images_per_cpu_s"]["median"],
        "rows": time_steps(entered, given.rounds, given.threads),
    }
    name = f"imagenet_{given.device}"
    (given.out / f"{name}.json").write_text(json.dumps(result, indent=1) + "\n")
    (given.out / f"{name}.md").write_text(page(result))
    print(page(result))


if __name__ == "__main__":
    main()
