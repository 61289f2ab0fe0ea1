"""Images per second of training steps: IGCV3 in all its forms, and what people would use instead.

A step is forward, backward, SGD with momentum and the moving average of the weights, on random images. Every network
runs in a process of its own, so that its peak memory is its own. In each round each network makes a few steps while the
others wait, in a random order, so that all see the same machine. Numbers are medians over the rounds with the smallest
and the largest. Ratios are taken within each round first. "Before" is a step without the remedies of
igcv/models/gradients.py.

    python studies/benchmarks/training.py                          # CPU, float32; some 20 minutes on two cores
    python studies/benchmarks/training.py --precision bf16 --short # CPU, bf16; 4 networks, before and after: 5 minutes
    python studies/benchmarks/training.py --device cuda            # GPU, bf16, with and without torch.compile

pytorchcv takes part where it is installed (pip install pytorchcv).
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch

from studies.benchmarks.conditions import host_and_versions
from studies.benchmarks.training_entries import entries, families
from studies.benchmarks.training_limits import ceilings, image_load
from studies.benchmarks.training_page import page, plot
from studies.benchmarks.training_steps import time_steps

METHOD = (__doc__ or "").split("\n\n")[1].replace("\n", " ")


def main() -> None:
    """Measure, and write a page, a plot and the numbers."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--precision", choices=("float32", "bf16"), help="default: float32, on a GPU bf16")
    parser.add_argument("--short", action="store_true", help="four networks only, before and after")
    parser.add_argument("--rounds", type=int, default=7, help="how often each one is measured (default: 7)")
    parser.add_argument("--sizes", type=int, nargs="+", choices=(32, 224), default=[32, 224], help="pixels")
    parser.add_argument("--no-growth", action="store_true", help="leave out how cost grows")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)"
    )
    parser.add_argument("--out", type=Path, help="results without suffix (default: results/training_DEVICE)")
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("there is no GPU; leave out --device cuda")
    torch.set_num_threads(options.threads)
    usual = "bf16" if options.device == "cuda" else "float32"
    precision = options.precision or usual
    name = f"training_{options.device}" + ("" if precision == usual else f"_{precision}")
    out = options.out or Path(__file__).parent / "results" / name
    loads = [(name, size) for size in options.sizes for name in ("igcv3_d_100", "mobilenetv2_100")]
    result: dict[str, Any] = {
        "machine": {**host_and_versions(options.device), "precision": precision},
        "ceilings": ceilings(options.device, precision),
        "loads": [{"network": name, "size": size, **image_load(name, size)} for name, size in loads],
        "sizes": {},
        "growth": {},
    }
    out.parent.mkdir(parents=True, exist_ok=True)
    for size in options.sizes:
        entered = entries(size, options.device, precision, options.short)
        result["sizes"][str(size)] = time_steps(entered, options.rounds, options.threads)
        write(result, out)
    without_growth = options.no_growth or options.short
    for what, family in families(options.device, precision).items() if not without_growth else ():
        result["growth"][what] = time_steps(family, options.rounds, options.threads)
        write(result, out)
    print(page(result, METHOD))


def write(result: dict[str, Any], out: Path) -> None:
    """What has been measured so far."""
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    out.with_suffix(".md").write_text(page(result, METHOD) + f"\n![images per second]({out.name}.png)\n")
    plot(result, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
