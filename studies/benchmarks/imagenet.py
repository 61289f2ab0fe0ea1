"""What ImageNet would take: hours, memory and decoding cores, from training steps measured at 224 pixels.

Steps are those of training.py: random images on the device, forward, backward and SGD, in turns for several batch
sizes. Everything else on the page is arithmetic: epochs times 1,281,167 images over the images per second, for so many
GPUs as if each added its full share (gradients are 3.5 M numbers, sent while the next layer is computed; what a real
cluster loses has to be measured there).

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
IMAGES, SIDE = 1_281_167, 224  # of ImageNet's training set; pixels
STAGES = ("imagenet_mxnet", "imagenet_retrain", "imagenet_300")
DEVICES = (1, 8, 64)
BATCHES = {"cpu": (4, 16), "cuda": (96, 256, 512, 1024)}


def full_epochs(recipe: Recipe) -> float:
    """Return how many epochs at full size cost as much: an epoch on smaller images counts by its pixels."""
    sizes = (recipe.size_at(epoch) or SIDE for epoch in range(recipe.epochs))
    return sum((size / SIDE) ** 2 for size in sizes)


def hours(epochs: float, images_per_s: float, devices: int) -> float:
    """Return hours of training if each device adds its full share; `epochs` are at full size."""
    return epochs * IMAGES / (images_per_s * devices) / 3600


def page(result: dict[str, Any]) -> str:
    """The figures as Markdown."""
    rows, per_core = result["rows"], result["decoded_per_core"]
    fastest = max(rows, key=lambda row: median(row["rates"]))
    rate = median(fastest["rates"])
    device = {"cuda": "GPU", "cpu": "such CPU"}[fastest["device"]]
    conditions = ", ".join(f"{key} {value}" for key, value in result["machine"].items())
    lines = [
        "# What ImageNet would take",
        "",
        f"IGCV3-D 1.0x at 224 pixels, {result['precision']}. Written by `python studies/benchmarks/imagenet.py`. "
        f"{conditions}.",
        "",
        "## Measured steps",
        "",
        "| images of a step | images/s | MiB |",
        "|---:|---:|---:|",
        *(f"| {row['batch']} | {spread(row['rates'])} | {row['memory_mib']:,} |" for row in rows),
        "",
        f"## Hours of training, from the fastest of them: {rate:,.1f} images/s on one device",
        "",
        f"| recipe | epochs | {' | '.join(f'{n} {device}' + 's' * (n > 1) for n in DEVICES)} |",
        f"|---|---:|{'---:|' * len(DEVICES)}",
    ]
    for stage in STAGES:
        recipe = load_recipe(RECIPES / f"{stage}.toml")
        times = " | ".join(f"{hours(full_epochs(recipe), rate, devices):,.1f}" for devices in DEVICES)
        lines.append(f"| [{stage}](../../../recipes/{stage}.toml) | {recipe.epochs} | {times} |")
    lines += [
        "",
        "Epochs on smaller images (progressive resizing) count by their pixels: expected, not measured.",
        "",
        "## Images that have to be decoded meanwhile",
        "",
        f"One core decodes and augments {per_core:,.0f} images a second (measured elsewhere: [data](data.md)).",
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
    parser.add_argument("--device", choices=sorted(BATCHES), default="cpu")
    parser.add_argument("--rounds", type=int, default=5, help="turns of each batch size")
    parser.add_argument("--threads", type=int, default=2, help="of the CPU")
    parser.add_argument("--out", type=Path, default=RESULTS, help="folder for the results")
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
