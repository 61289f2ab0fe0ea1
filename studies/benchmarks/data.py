"""Images per second on one core: the training pipelines of igcv and timm on the same images.

Both read images from one folder per class, crop 8..100 % of the area to 224 x 224 pixels (bicubic) and flip half of the
images. Both change brightness, contrast and saturation by up to 40 % in random order and return normalized float32
batches. The distribution of the augmentation is the same. The random numbers differ: igcv derives them from
(seed, epoch, image). igcv resizes with torch's kernels instead of Pillow's (one value of 30 differs, by 1 of 255). It
decodes a JPEG at 1/2, 1/4 or 1/8 of its size if the crop is at least that many times larger than 224 pixels.

    OMP_NUM_THREADS=1 python studies/benchmarks/data.py FOLDER
"""

import argparse
import json
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from statistics import mean, median
from typing import Any

import timm.data
import torch
from PIL import features

from igcv.data import Finish, Images, LoaderSettings, StreamImages, make_loader, train_transform
from igcv.data.preprocessing import IMAGENET
from igcv.data.sources.open import open_source
from studies.benchmarks.conditions import host_and_versions

Epochs = Iterator[torch.Tensor]  # endless batches


def main() -> None:
    """Measure the pipelines alternately, print a table, and write the table with the conditions."""
    options = parse()
    torch.set_num_threads(1)
    source = open_source(str(options.folder), seed=None)  # holds out no images, like timm
    images = source.train or source.val
    assert images is not None
    pipelines: dict[str, Epochs] = {
        "igcv": igcv_batches(images, options.batch_size),
        "timm, use_prefetcher=True": timm_batches(options.folder, options.batch_size, prefetch=True),
        "timm, use_prefetcher=False": timm_batches(options.folder, options.batch_size, prefetch=False),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in pipelines}
    for _ in range(options.rounds + 1):
        for name, batches in pipelines.items():
            rates[name].append(rate(batches, options.seconds))
    figures = {name: summary(measured[1:]) for name, measured in rates.items()}  # the first round warms up
    result = {
        "figures": figures,
        "images": describe(images),
        "batch_size": options.batch_size,
        "rounds": options.rounds,
        "seconds_per_round": options.seconds,
        "machine": {**host_and_versions(), "libjpeg_turbo": features.version("libjpeg_turbo")},
    }
    write(result, options.out)


def parse() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("folder", type=Path, metavar="FOLDER", help="folder of images, one folder per class")
    parser.add_argument(
        "--batch-size", type=int, default=31, help="batch size, at most the number of images (default: 31)"
    )
    parser.add_argument("--rounds", type=int, default=9, help="measurement rounds (default: 9)")
    parser.add_argument("--seconds", type=float, default=4.0, help="seconds per measurement (default: 4)")
    default = Path(__file__).parent / "results" / "data"
    parser.add_argument(
        "--out", type=Path, default=default, help="results file without suffix (default: results/data)"
    )
    return parser.parse_args()


def igcv_batches(images: Images | StreamImages, batch_size: int) -> Epochs:
    """Yield the batches of igcv, epoch after epoch."""
    finish = Finish(IMAGENET, channels_last=False)
    transform = train_transform(IMAGENET, "inception")
    settings = LoaderSettings(batch_size=batch_size, train=True, skip_bad=True)
    loader = make_loader(images, transform, finish, settings)
    return endless(loader, loader.set_epoch)


def timm_batches(folder: Path, batch_size: int, prefetch: bool) -> Epochs:
    """Yield the batches of timm's create_loader, epoch after epoch."""
    part = folder / "train"
    dataset = timm.data.create_dataset("", root=str(part if part.is_dir() else folder), is_training=True)
    loader = timm.data.create_loader(
        dataset,
        (3, IMAGENET.input_size, IMAGENET.input_size),
        batch_size,
        is_training=True,
        interpolation=IMAGENET.interpolation,
        mean=IMAGENET.mean,
        std=IMAGENET.std,
        color_jitter=0.4,
        num_workers=0,
        persistent_workers=False,
        use_prefetcher=prefetch,
        device=torch.device("cpu"),
    )
    return endless(loader)


def endless(loader: Iterable[Any], start: Callable[[int], object] = lambda epoch: None) -> Epochs:
    """Yield the images of all batches, epoch after epoch."""
    epoch = 0
    while True:
        start(epoch)
        for images, _ in loader:
            assert images.dtype == torch.float32 and images.shape[1:] == (3, 224, 224)
            yield images
        epoch += 1


def rate(batches: Epochs, seconds: float) -> tuple[float, float]:
    """Return images per second of wall time and of processor time, measured for `seconds`."""
    count, clock, processor = 0, time.perf_counter(), time.process_time()
    while time.perf_counter() - clock < seconds:
        count += len(next(batches))
    return count / (time.perf_counter() - clock), count / (time.process_time() - processor)


def summary(measured: list[tuple[float, float]]) -> dict[str, dict[str, float]]:
    """Return the median, minimum and maximum of both rates."""
    names = ("images_per_s", "images_per_cpu_s")
    functions = {"median": median, "min": min, "max": max}
    return {
        name: {key: round(float(f(values)), 1) for key, f in functions.items()}
        for name, values in zip(names, zip(*measured, strict=True), strict=True)
    }


def describe(images: Images | StreamImages) -> dict[str, float]:
    """Return the number and the size of the images."""
    assert not isinstance(images, StreamImages)
    sizes = [images[i][0].size for i in range(min(len(images), 1000))]
    return {
        "count": len(images),
        "mean_megapixels": round(mean(width * height for width, height in sizes) / 1e6, 3),
        "shorter_side_of_448_or_more": sum(min(size) >= 448 for size in sizes),
    }


def write(result: dict[str, Any], out: Path) -> None:
    """Write the results as .json and as a table in .md, and print the table."""
    lines = ["| pipeline | images/s | images per second of processor time |", "|---|---|---|"]
    for name, rates in result["figures"].items():
        cells = [f"{r['median']:.1f} ({r['min']:.1f} to {r['max']:.1f})" for r in rates.values()]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    images, place = result["images"], result["machine"]
    lines += [
        "",
        f"Median (min to max) of {result['rounds']} interleaved rounds of {result['seconds_per_round']:g} s each, in "
        f"one process without data-loading workers; batch size {result['batch_size']}. {images['count']} images of "
        f"{images['mean_megapixels']} megapixels on average; {images['shorter_side_of_448_or_more']} images have a "
        "shorter side of 448 pixels or more.",
        "",
        ", ".join(f"{key} {value}" for key, value in place.items()),
    ]
    text = "\n".join(lines) + "\n"
    print(text)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.with_suffix(".md").write_text(
        "# Data loading: images per second on one core\n\n"
        f"Reading, decoding and augmenting images for training at 224 pixels, with igcv and with timm.\n\n{text}"
    )
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")


if __name__ == "__main__":
    main()
