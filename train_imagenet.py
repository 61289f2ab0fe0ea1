"""The command line of the original MXNet project, as a thin entry to `igcv train`.

python train_imagenet.py --network=IGCV3 --multiplier=1.0 --gpus=0,1,2,3,4,5,6,7 --batch-size=96 --data-dir=DIR
"""

import argparse
import sys
from pathlib import Path

from igcv.commands.main import main
from igcv.errors import InputError, unknown

NETWORKS = {  # the original's names -> ours
    "igcv3": "igcv3_d",
    "igcv3_wider": "igcv3_w",
    "igcv3_g2g4": "igcv3_g2g4",
    "mobilenetv2": "mobilenetv2_mxnet",
}
SETTINGS = {  # the original's options that are settings of a recipe
    "batch_size": "batch_size",
    "num_epochs": "epochs",
    "lr": "lr",
    "lr_factor": "lr_factor",
    "wd": "weight_decay",
    "mom": "momentum",
    "data_nthreads": "workers",
    "multiplier": "multiplier",
}


def parse(arguments: list[str]) -> argparse.Namespace:
    """The options of the original that still mean something."""
    parser = argparse.ArgumentParser(
        description="Train on ImageNet with the original project's command line."
    )
    parser.add_argument("--network", default="IGCV3", help="IGCV3, igcv3_wider, igcv3_g2g4 or mobilenetv2")
    parser.add_argument("--multiplier", type=float, default=1.0, help="width multiplier")
    parser.add_argument(
        "--gpus", default="", help="e.g. 0,1,2,3; empty: one GPU if there is one, else the CPU"
    )
    parser.add_argument("--batch-size", type=int, default=96, help="images per step, over all GPUs")
    parser.add_argument(
        "--data-dir", help="folder with the .rec files, or with train/ and val/ class folders"
    )
    parser.add_argument("--data-train", help="training .rec file, instead of --data-dir")
    parser.add_argument("--data-val", help="validation .rec file, instead of --data-dir")
    parser.add_argument("--num-epochs", type=int, help="epochs (480)")
    parser.add_argument("--lr", type=float, help="learning rate (0.045)")
    parser.add_argument("--lr-factor", type=float, help="factor on the rate per epoch (0.98)")
    parser.add_argument("--wd", type=float, help="weight decay (4e-5)")
    parser.add_argument("--mom", type=float, help="momentum (0.9)")
    parser.add_argument("--data-nthreads", type=int, help="decoding processes per GPU")
    parser.add_argument("--model-prefix", default="models/igcv3", help="run folder")
    parser.add_argument("--load-epoch", type=int, help="go on with the run in --model-prefix")
    return parser.parse_args(arguments)


def data_spec(options: argparse.Namespace) -> str:
    """The --data of igcv for the original's data options."""
    if options.data_train:
        return f"rec:{options.data_train}" + (f",{options.data_val}" if options.data_val else "")
    if not options.data_dir:
        raise InputError("no data given; add --data-dir=DIR, a folder with .rec files or class folders")
    folder = Path(options.data_dir)
    records = {part: sorted(folder.glob(f"*{part}*.rec")) for part in ("train", "val")}
    if records["train"] and records["val"]:
        return f"rec:{records['train'][0]},{records['val'][0]}"
    return f"folder:{folder}"


def translate(arguments: list[str]) -> list[str]:
    """The arguments of `igcv train` that do the same."""
    options = parse(arguments)
    network = NETWORKS.get(options.network.lower())
    if network is None:
        raise unknown("network", options.network, NETWORKS)
    recipe = Path(__file__).parent / "recipes" / "imagenet_mxnet.toml"
    command = [
        "train",
        str(recipe),
        f"--model={network}",
        f"--data={data_spec(options)}",
        f"--out={options.model_prefix}",
    ]
    command += [f"--gpus={options.gpus}"] if options.gpus else []
    command += ["--resume"] if options.load_epoch is not None else []
    given = ((key, getattr(options, option)) for option, key in SETTINGS.items())
    return command + [f"{key}={value}" for key, value in given if value is not None]


if __name__ == "__main__":
    try:
        sys.argv = ["igcv", *translate(sys.argv[1:])]
    except InputError as error:
        print(f"train_imagenet.py: {error}", file=sys.stderr)
        sys.exit(2)
    main()
