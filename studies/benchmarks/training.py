"""Images per second of training steps: IGCV3 in all its forms, MobileNetV2 and other implementations.

A step is forward, backward, SGD with momentum and the exponential moving average (EMA) of the weights, on random
images. Every network runs in its own process, which measures its peak memory. In each round, each network computes a
few steps while the others wait. The order is random, so that changing load on the machine affects all networks. Numbers
are medians (min to max) of the rounds. Ratios are taken within each round. The name after a network is the form of its
blocks; "literal" computes the papers' layers one by one. "Before" is a step without the fixes in
igcv/models/gradients.py. With "default malloc", igcv does not make glibc malloc keep freed memory.

    python studies/benchmarks/training.py                          # CPU, float32; some 20 minutes on two cores
    python studies/benchmarks/training.py --precision bf16 --short # CPU, bf16; 4 networks, before and after: 5 minutes
    python studies/benchmarks/training.py --device cuda            # GPU, bf16, with and without torch.compile

Includes pytorchcv if it is installed (pip install pytorchcv).
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
    """Measure the networks and write a page, a plot and a JSON file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="device (default: cpu)")
    parser.add_argument(
        "--precision", choices=("float32", "bf16"), help="precision (default: float32; on a GPU bf16)"
    )
    parser.add_argument("--short", action="store_true", help="only four networks, before and after the fixes")
    parser.add_argument("--rounds", type=int, default=7, help="measurement rounds (default: 7)")
    parser.add_argument(
        "--sizes",
        type=int,
        nargs="+",
        choices=(32, 224),
        default=[32, 224],
        help="image sides in pixels (default: both)",
    )
    parser.add_argument("--no-growth", action="store_true", help="omit the scaling measurements")
    parser.add_argument(
        "--threads", type=int, default=torch.get_num_threads(), help="CPU threads (default: all)"
    )
    parser.add_argument(
        "--out", type=Path, help="results file without suffix (default: results/training_DEVICE)"
    )
    options = parser.parse_args()
    if options.device == "cuda" and not torch.cuda.is_available():
        parser.error("--device: got 'cuda', but no GPU was found. Omit --device to use the CPU.")
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
    """Write the results measured so far."""
    out.with_suffix(".json").write_text(json.dumps(result, indent=2) + "\n")
    out.with_suffix(".md").write_text(page(result, METHOD) + f"\n![images per second]({out.name}.png)\n")
    plot(result, out.with_suffix(".png"))


if __name__ == "__main__":
    main()
